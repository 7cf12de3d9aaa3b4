// The arguments of pgd_perturb_mlp, checked, as its CPU and CUDA sides take them.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "check.h"
#include "math/pgd_perturb_mlp.h"

namespace scdr {

constexpr const char* kPgdPerturbMlp = "pgd_perturb_mlp";

struct PgdMlpRequest {
  Tensor user, item, rating;  // float32 [B, d_source], [B, d_target], [B]
  PgdMlp mlp;
  std::int64_t rows;
};

inline void throw_if_not_finite(const char* op, unsigned not_finite) {
  const char* what = "holds a value that is not finite";
  check((not_finite & kNotFiniteUser) == 0, op, "user", what);
  check((not_finite & kNotFiniteItem) == 0, op, "item", what);
  check((not_finite & kNotFiniteRating) == 0, op, "rating", what);
}

inline void check_width(const char* op, const char* name, const Tensor& tensor, std::int64_t axis) {
  check(tensor.dim() == 2, op, name, "must have 2 dimensions, not ", tensor.dim());
  const std::int64_t width = tensor.size(axis);
  check(width >= 1 && width <= kMostPgdWidth, op, name, "must have 1 to ", kMostPgdWidth,
        axis == 0 ? " rows, not " : " columns, not ", width);
}

// The mapping and its perturbation, checked; `user` and `item` are rows of their vectors.
inline PgdMlp check_mlp(const char* op, const Tensor& user, const Tensor& item, const Tensor& w1,
                        const std::optional<Tensor>& b1, const Tensor& w2,
                        const std::optional<Tensor>& b2, std::int64_t steps,
                        std::optional<double> given_step_size, double radius) {
  constexpr auto f32 = ScalarType::Float;
  check(steps >= 0, op, "steps", "must not be negative, not ", steps);
  if (given_step_size)
    check(std::isfinite(*given_step_size) && *given_step_size > 0.0, op, "step_size",
          "must be finite and positive, not ", *given_step_size);
  check_not_negative(op, "radius", radius);
  check_width(op, "user", user, 1);
  check_width(op, "item", item, 1);
  check_width(op, "w1", w1, 0);
  const std::int64_t d_source = user.size(1), d_target = item.size(1), hidden = w1.size(0);
  check_tensor(op, "user", user, f32, {user.size(0), d_source}, user);
  check_tensor(op, "item", item, f32, {item.size(0), d_target}, user);
  check_tensor(op, "w1", w1, f32, {hidden, d_source}, user);
  check_tensor(op, "w2", w2, f32, {d_target, hidden}, user);
  if (b1) check_tensor(op, "b1", *b1, f32, {hidden}, user);
  if (b2) check_tensor(op, "b2", *b2, f32, {d_target}, user);

  const auto read = [](const Tensor& tensor) { return tensor.const_data_ptr<float>(); };
  const double step_size = given_step_size.value_or(1.0 / std::sqrt(static_cast<double>(d_source)));
  // A step so much longer than the radius leaves nothing of those before it; and of a ball so small
  // that float32 holds the delta to few digits or none, it is 0.
  const double step = static_cast<float>(std::min(step_size, radius * 1e12));
  const bool moves = step > 0.0 && radius >= 1e-30;
  return {.w1 = read(w1),
          .b1 = b1 ? read(*b1) : nullptr,
          .w2 = read(w2),
          .b2 = b2 ? read(*b2) : nullptr,
          .d_source = static_cast<int>(d_source),
          .d_target = static_cast<int>(d_target),
          .hidden = static_cast<int>(hidden),
          .steps = moves ? steps : 0,
          .step_size = static_cast<float>(step),
          .reach = moves ? static_cast<float>(radius / step) : 0.0f};
}

// A thread of the CPU is worth waking for so many rows: some 500,000 multiply-adds, of the order of
// 10 microseconds. A tanh costs about 16 of them.
inline std::int64_t rows_worth_thread(const PgdMlp& mlp) {
  const std::int64_t row =
      mlp.hidden * (mlp.d_target + (mlp.steps + 1) * (2 * mlp.d_source + std::int64_t{16}));
  return 500'000 / row + 1;
}

inline void check_tanh(const Tensor& x) {
  check(x.scalar_type() == ScalarType::Float, "tanh", "x", "must have dtype Float");
  check(x.is_contiguous(), "tanh", "x", "must be contiguous");
}

inline void make_contiguous(Tensor& tensor) {
  if (!tensor.is_contiguous()) tensor = torch::stable::contiguous(tensor);
}

using RunPgdMlpRequest = Tensor (*)(const PgdMlpRequest&);

// The op as torch calls it; `run` does it on one kind of device.
template <RunPgdMlpRequest run>
Tensor pgd_perturb_mlp(Tensor user, Tensor item, Tensor rating, Tensor w1, std::optional<Tensor> b1,
                       Tensor w2, std::optional<Tensor> b2, std::int64_t steps,
                       std::optional<double> step_size, double radius) {
  const char* op = kPgdPerturbMlp;
  for (Tensor* tensor : {&user, &item, &rating, &w1, &w2}) make_contiguous(*tensor);
  if (b1) make_contiguous(*b1);
  if (b2) make_contiguous(*b2);
  const PgdMlp mlp = check_mlp(op, user, item, w1, b1, w2, b2, steps, step_size, radius);
  const std::int64_t rows = user.size(0);
  check_tensor(op, "item", item, ScalarType::Float, {rows, item.size(1)}, user);
  check_tensor(op, "rating", rating, ScalarType::Float, {rows}, user);
  return run({.user = user, .item = item, .rating = rating, .mlp = mlp, .rows = rows});
}

}  // namespace scdr
