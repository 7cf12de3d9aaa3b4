// The arguments of the sharp losses and of their gradients, checked, with room for the results, as
// the CPU and CUDA sides take them.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "check.h"
#include "math/sharp_mapping_loss.h"
#include "math/sharp_mf_loss.h"
#include "pgd_perturb_mlp_request.h"

namespace scdr {

constexpr const char* kSharpMf = "sharp_mf_loss";
constexpr const char* kSharpMfBackward = "sharp_mf_loss_backward";
constexpr const char* kSharpMapping = "sharp_mapping_loss";
constexpr const char* kSharpMappingBackward = "sharp_mapping_loss_backward";

// `like` is a tensor of the device that does the work.
struct SharpMfRequest {
  Tensor like;
  SharpMfRows rows;
  MfSettings settings;
  Inner inner;
  std::int64_t count;
};

struct SharpMfBackwardRequest {
  Tensor like;
  SharpMfGradients rows;
  Inner inner;
  std::int64_t count;
};

struct SharpMappingRequest {
  Tensor like;
  PgdMlp mlp;
  SharpRows rows;
  std::int64_t count;
};

struct SharpMappingBackwardRequest {
  Tensor like;
  PgdMlp mlp;
  SharpGradients rows;
  float* over_mapping[4];  // w1, b1, w2, b2; null of a bias that there is not
  std::int64_t count;
};

inline Tensor vector_like(const Tensor& tensor, std::int64_t size) {
  return torch::stable::new_empty(tensor, {size});
}

inline void check_vector(const char* op, const char* name, const Tensor& tensor,
                         const Tensor& user) {
  check_tensor(op, name, tensor, ScalarType::Float, {user.size(0)}, user);
}

inline void check_matrix(const char* op, const char* name, const Tensor& tensor, std::int64_t width,
                         const Tensor& user) {
  check_tensor(op, name, tensor, ScalarType::Float, {user.size(0), width}, user);
}

inline Inner inner_of(const char* op, const std::string& inner) {
  check(inner == "pgd" || inner == "exact", op, "inner", "must be \"pgd\" or \"exact\", not \"",
        inner, '"');
  return inner == "pgd" ? Inner::pgd : Inner::exact;
}

using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;

// Loss, error and along of math/sharp_mf_loss.h.
template <void (*run)(const SharpMfRequest&)>
ThreeTensors sharp_mf_loss(Tensor user, Tensor item, Tensor rating, std::int64_t steps,
                           double step_size, double radius, std::string inner_name) {
  const char* op = kSharpMf;
  check(steps >= 0, op, "steps", "must not be negative, not ", steps);
  check_not_negative(op, "step_size", step_size);
  check_not_negative(op, "radius", radius);
  check_width(op, "user", user, 1);
  const std::int64_t count = user.size(0), d = user.size(1);
  check_matrix(op, "user", user, d, user);
  check_matrix(op, "item", item, d, user);
  check_vector(op, "rating", rating, user);
  const Inner inner = inner_of(op, inner_name);

  Tensor loss = vector_like(user, count), error = vector_like(user, count);
  Tensor along = vector_like(user, count);
  const auto reach = static_cast<float>(static_cast<double>(steps) * step_size);
  MfSettings settings{};
  settings.reach = reach;
  settings.radius = static_cast<float>(radius);
  settings.full_length = pgd_length(reach, settings.radius, std::sqrt(static_cast<float>(d)));
  run({.like = user,
       .rows = {.user = user.const_data_ptr<float>(),
                .item = item.const_data_ptr<float>(),
                .rating = rating.const_data_ptr<float>(),
                .error = error.mutable_data_ptr<float>(),
                .along = along.mutable_data_ptr<float>(),
                .loss = loss.mutable_data_ptr<float>(),
                .d = static_cast<int>(d)},
       .settings = settings,
       .inner = steps == 0 || radius == 0.0 ? Inner::none : inner,
       .count = count});
  return {loss, error, along};
}

// Gradients over user, item and rating.
template <void (*run)(const SharpMfBackwardRequest&)>
ThreeTensors sharp_mf_loss_backward(Tensor grad, Tensor user, Tensor item, Tensor error,
                                    Tensor along, std::string inner) {
  const char* op = kSharpMfBackward;
  check_width(op, "user", user, 1);
  const std::int64_t count = user.size(0), d = user.size(1);
  check_matrix(op, "user", user, d, user);
  check_matrix(op, "item", item, d, user);
  check_vector(op, "grad", grad, user);
  check_vector(op, "error", error, user);
  check_vector(op, "along", along, user);
  Tensor over_user = torch::stable::empty_like(user), over_item = torch::stable::empty_like(item);
  Tensor over_rating = vector_like(user, count);
  run({.like = user,
       .rows = {.loss = grad.const_data_ptr<float>(),
                .user = user.const_data_ptr<float>(),
                .item = item.const_data_ptr<float>(),
                .error = error.const_data_ptr<float>(),
                .along = along.const_data_ptr<float>(),
                .over_user = over_user.mutable_data_ptr<float>(),
                .over_item = over_item.mutable_data_ptr<float>(),
                .over_rating = over_rating.mutable_data_ptr<float>(),
                .d = static_cast<int>(d)},
       .inner = inner_of(op, inner),  // along is 0 where nothing was perturbed
       .count = count});
  return {over_user, over_item, over_rating};
}

// Loss [B] and perturbed user vectors [B, d_source].
template <void (*run)(const SharpMappingRequest&)>
std::tuple<Tensor, Tensor> sharp_mapping_loss(Tensor user, Tensor item, Tensor rating, Tensor w1,
                                              std::optional<Tensor> b1, Tensor w2,
                                              std::optional<Tensor> b2, std::int64_t steps,
                                              double step_size, double radius) {
  const char* op = kSharpMapping;
  const PgdMlp mlp = check_mlp(op, user, item, w1, b1, w2, b2, steps, step_size, radius);
  check_matrix(op, "item", item, mlp.d_target, user);
  check_vector(op, "rating", rating, user);
  Tensor loss = vector_like(user, user.size(0)), moved = torch::stable::empty_like(user);
  run({.like = user,
       .mlp = mlp,
       .rows = {.user = user.const_data_ptr<float>(),
                .item = item.const_data_ptr<float>(),
                .rating = rating.const_data_ptr<float>(),
                .loss = loss.mutable_data_ptr<float>(),
                .moved = moved.mutable_data_ptr<float>()},
       .count = user.size(0)});
  return {loss, moved};
}

using SevenTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Gradients over user, item, rating, w1, b1, w2, b2; empty ones over what is not there, and over
// item unless it is asked for.
template <void (*run)(const SharpMappingBackwardRequest&)>
SevenTensors sharp_mapping_loss_backward(Tensor grad, Tensor moved, Tensor item, Tensor rating,
                                         Tensor w1, std::optional<Tensor> b1, Tensor w2,
                                         std::optional<Tensor> b2, bool item_too) {
  const char* op = kSharpMappingBackward;
  const PgdMlp mlp = check_mlp(op, moved, item, w1, b1, w2, b2, 0, std::nullopt, 0.0);
  const std::int64_t count = moved.size(0);
  check_matrix(op, "item", item, mlp.d_target, moved);
  check_vector(op, "rating", rating, moved);
  check_vector(op, "grad", grad, moved);
  Tensor over_user = torch::stable::empty_like(moved);
  Tensor over_item = item_too ? torch::stable::empty_like(item) : vector_like(item, 0);
  Tensor over_rating = vector_like(rating, count);
  Tensor over_w1 = torch::stable::empty_like(w1), over_w2 = torch::stable::empty_like(w2);
  Tensor over_b1 = vector_like(w1, b1 ? mlp.hidden : 0);
  Tensor over_b2 = vector_like(w2, b2 ? mlp.d_target : 0);
  const auto to = [](Tensor& tensor, bool wanted) {
    return wanted ? tensor.mutable_data_ptr<float>() : nullptr;
  };
  run({.like = moved,
       .mlp = mlp,
       .rows = {.loss = grad.const_data_ptr<float>(),
                .moved = moved.const_data_ptr<float>(),
                .item = item.const_data_ptr<float>(),
                .rating = rating.const_data_ptr<float>(),
                .over_user = to(over_user, true),
                .over_item = to(over_item, item_too),
                .over_rating = to(over_rating, true)},
       .over_mapping = {to(over_w1, true), to(over_b1, b1.has_value()), to(over_w2, true),
                        to(over_b2, b2.has_value())},
       .count = count});
  return {over_user, over_item, over_rating, over_w1, over_b1, over_w2, over_b2};
}

}  // namespace scdr
