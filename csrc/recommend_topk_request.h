// The arguments of recommend_topk, checked, as its CPU and CUDA sides take them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>

#include "check.h"
#include "math/recommend_topk.h"

namespace scdr {

constexpr const char* kRecommendTopk = "recommend_topk";

struct TopkRequest {
  Tensor user_vectors, item_vectors;      // float32 [B, d], [I, d]
  std::optional<Tensor> offsets;          // float32 [I]
  std::optional<Tensor> exclude_offsets;  // int64 [B + 1]
  std::optional<Tensor> exclude_items;    // int32 or int64 [n]; both or neither
  std::int64_t n_users, n_items, k, n_excluded;
  int d;
};

using TopkResult = std::tuple<Tensor, Tensor>;  // scores [B, k], items [B, k]

// The largest magnitude in each tensor, as the bits of a float: ordered as integers are.
struct TopkMagnitudes {
  std::uint32_t user, item, offset;
};
constexpr std::uint32_t kMagnitude = 0x7fffffffu;

inline void check_magnitudes(const TopkMagnitudes& most, int d) {
  constexpr std::uint32_t infinite = 0x7f800000u;
  const auto finite = [](const char* name, std::uint32_t bits) {
    check(bits < infinite, kRecommendTopk, name, "holds a value that is not finite");
  };
  finite("user_vectors", most.user);
  finite("item_vectors", most.item);
  finite("offsets", most.offset);
  // A little below the largest float, for the roundings of the sum.
  const double user = std::bit_cast<float>(most.user), item = std::bit_cast<float>(most.item);
  check(d * user * item + std::bit_cast<float>(most.offset) < 3.4e38, kRecommendTopk,
        "user_vectors", "is too large: with magnitudes up to ", user,
        ", and of item_vectors up to ", item, ", a score may exceed what float32 holds");
}

inline void check_excluded_item(std::int64_t item, std::int64_t n_items) {
  check(item >= 0 && item < n_items, kRecommendTopk, "exclude_items", "holds ", item,
        ", outside [0, ", n_items, ")");
}

inline void check_exclude_offsets(bool rising) {
  check(rising, kRecommendTopk, "exclude_offsets",
        "must start at 0, never fall, and end at the number of exclude_items");
}

using RunTopkRequest = TopkResult (*)(const TopkRequest&);

// The op as torch calls it; `run` does it on one kind of device.
template <RunTopkRequest run>
TopkResult recommend_topk(Tensor user_vectors, Tensor item_vectors, std::int64_t k,
                          std::optional<Tensor> offsets, std::optional<Tensor> exclude_offsets,
                          std::optional<Tensor> exclude_items) {
  const char* op = kRecommendTopk;
  constexpr auto f32 = ScalarType::Float;
  check(user_vectors.dim() == 2, op, "user_vectors", "must have 2 dimensions, not ",
        user_vectors.dim());
  check(item_vectors.dim() == 2, op, "item_vectors", "must have 2 dimensions, not ",
        item_vectors.dim());
  const std::int64_t n_users = user_vectors.size(0), n_items = item_vectors.size(0);
  const std::int64_t d = user_vectors.size(1);
  check(d >= 1 && d <= kMostTopkWidth, op, "user_vectors", "must have 1 to ", kMostTopkWidth,
        " columns, not ", d);
  check_tensor(op, "user_vectors", user_vectors, f32, {n_users, d}, user_vectors);
  check_tensor(op, "item_vectors", item_vectors, f32, {n_items, d}, user_vectors);
  check(n_items < std::numeric_limits<std::int32_t>::max(), op, "item_vectors", "has ", n_items,
        " rows; it must have fewer than 2^31 - 1");
  check(k >= 0, op, "k", "must not be negative, not ", k);
  if (offsets) check_tensor(op, "offsets", *offsets, f32, {n_items}, user_vectors);
  check(exclude_offsets.has_value() == exclude_items.has_value(), op, "exclude_offsets",
        "and exclude_items must be given together");
  std::int64_t n_excluded = 0;
  if (exclude_items) {
    const ScalarType dtype = exclude_items->scalar_type();
    check(dtype == ScalarType::Int || dtype == ScalarType::Long, op, "exclude_items",
          "must have dtype Int or Long, not ", torch::headeronly::toString(dtype));
    check(exclude_items->dim() == 1, op, "exclude_items", "must have 1 dimension, not ",
          exclude_items->dim());
    n_excluded = exclude_items->size(0);
    check_tensor(op, "exclude_items", *exclude_items, dtype, {n_excluded}, user_vectors);
    check_tensor(op, "exclude_offsets", *exclude_offsets, ScalarType::Long, {n_users + 1},
                 user_vectors);
  }
  return run({.user_vectors = user_vectors,
              .item_vectors = item_vectors,
              .offsets = offsets,
              .exclude_offsets = exclude_offsets,
              .exclude_items = exclude_items,
              .n_users = n_users,
              .n_items = n_items,
              .k = k,
              .n_excluded = n_excluded,
              .d = static_cast<int>(d)});
}

}  // namespace scdr
