// The arguments of mf_sgd_epoch_, checked, as its CPU and CUDA sides take them.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "adam.h"
#include "check.h"
#include "math/mf_sgd_epoch.h"

namespace scdr {

constexpr const char* kMfSgdEpoch = "mf_sgd_epoch_";

// Adam's moments of one table and of its biases.
struct MfMomentTensors {
  std::optional<Tensor> first, second, bias_first, bias_second;
};

struct MfRequest {
  Tensor user, item;             // float32 [U, d], [I, d]
  Tensor users, items, ratings;  // int32 [n], int32 [n], float32 [n]
  Tensor order;                  // int32 or int64 [visits]
  std::optional<Tensor> user_bias, item_bias, user_inverse_count, item_inverse_count;
  std::int64_t n_users, n_items, rows, visits, batch_size;
  int d;
  Inner inner;
  MfSettings settings;
  std::optional<double> clip_norm;
  std::optional<Tensor> adam_step;  // int64 [], on the CPU: batches so far, counted on; or SGD
  AdamSettings adam;
  MfMomentTensors user_moments, item_moments;

  // Whether the gradient of a row is needed as a whole, summed over its visits in a batch.
  bool gathers() const { return clip_norm || adam_step; }

  static const float* read(const std::optional<Tensor>& tensor) {
    return tensor ? tensor->const_data_ptr<float>() : nullptr;
  }
  static float* write(const std::optional<Tensor>& tensor) {
    return tensor ? tensor->mutable_data_ptr<float>() : nullptr;
  }
};

// There are moments of a table where there are the table and Adam, and they look like the table.
inline void check_moment(const char* name, const std::optional<Tensor>& moment, bool adam,
                         const std::optional<Tensor>& table) {
  const bool wanted = adam && table;
  check(moment.has_value() == wanted, kMfSgdEpoch, name,
        wanted ? "is missing" : "is given, but nothing that it belongs to");
  if (!wanted) return;
  if (table->dim() == 2)
    check_tensor(kMfSgdEpoch, name, *moment, ScalarType::Float, {table->size(0), table->size(1)},
                 *table);
  else
    check_tensor(kMfSgdEpoch, name, *moment, ScalarType::Float, {table->size(0)}, *table);
}

inline void check_adam_request(const MfRequest& request) {
  const bool adam = request.adam_step.has_value();
  const MfMomentTensors &user = request.user_moments, &item = request.item_moments;
  check_moment("adam.first[\"user\"]", user.first, adam, request.user);
  check_moment("adam.second[\"user\"]", user.second, adam, request.user);
  check_moment("adam.first[\"item\"]", item.first, adam, request.item);
  check_moment("adam.second[\"item\"]", item.second, adam, request.item);
  check_moment("adam.first[\"user_bias\"]", user.bias_first, adam, request.user_bias);
  check_moment("adam.second[\"user_bias\"]", user.bias_second, adam, request.user_bias);
  check_moment("adam.first[\"item_bias\"]", item.bias_first, adam, request.item_bias);
  check_moment("adam.second[\"item_bias\"]", item.bias_second, adam, request.item_bias);
  if (!adam) return;
  check_adam(kMfSgdEpoch, request.adam);
  const Tensor& step = *request.adam_step;
  check(step.scalar_type() == ScalarType::Long && step.dim() == 0 && step.is_cpu(), kMfSgdEpoch,
        "adam.step", "must be one int64 on the CPU");
  const std::int64_t batches = *step.const_data_ptr<std::int64_t>();
  check(batches >= 0, kMfSgdEpoch, "adam.step", "must not be negative, not ", batches);
}

// What holds of the arguments without reading any tensor; their indices and ratings are checked by
// the device that holds them.
inline void check_mf_request(const MfRequest& request) {
  const char* op = kMfSgdEpoch;
  const Tensor& user = request.user;
  constexpr auto f32 = ScalarType::Float, i32 = ScalarType::Int;
  check(user.dim() == 2, op, "user", "must have shape [U, d]");
  check(request.d >= 1 && request.d <= 256, op, "user", "must have 1 to 256 factors, not ",
        request.d);
  check(request.item.dim() == 2, op, "item", "must have shape [I, d]");
  check(request.ratings.dim() == 1, op, "ratings", "must have shape [n]");
  check(request.order.dim() == 1, op, "order", "must have one dimension");
  const std::int64_t d = request.d, rows = request.rows;
  check_tensor(op, "user", user, f32, {request.n_users, d}, user);
  check_tensor(op, "item", request.item, f32, {request.n_items, d}, user);
  check_tensor(op, "ratings", request.ratings, f32, {rows}, user);
  check_tensor(op, "users", request.users, i32, {rows}, user);
  check_tensor(op, "items", request.items, i32, {rows}, user);
  const ScalarType index = request.order.scalar_type();
  check(index == i32 || index == ScalarType::Long, op, "order", "must have dtype Int or Long");
  check_tensor(op, "order", request.order, index, {request.visits}, user);
  check(request.visits <= rows, op, "order", "has ", request.visits, " rows, ratings has ", rows);
  if (request.user_bias)
    check_tensor(op, "user_bias", *request.user_bias, f32, {request.n_users}, user);
  if (request.item_bias)
    check_tensor(op, "item_bias", *request.item_bias, f32, {request.n_items}, user);
  if (request.user_inverse_count)
    check_tensor(op, "user_inverse_count", *request.user_inverse_count, f32, {request.n_users},
                 user);
  if (request.item_inverse_count)
    check_tensor(op, "item_inverse_count", *request.item_inverse_count, f32, {request.n_items},
                 user);
}

using RunMfRequest = Tensor (*)(const MfRequest&);

// The op as torch calls it; `run` does it on one kind of device.
template <RunMfRequest run>
Tensor mf_sgd_epoch(Tensor user, Tensor item, Tensor users, Tensor items, Tensor ratings,
                    Tensor order, double lr, std::int64_t batch_size,
                    std::optional<Tensor> user_bias, std::optional<Tensor> item_bias, double offset,
                    std::int64_t steps, std::optional<double> step_size, double radius,
                    std::string inner, double user_penalty, double item_penalty,
                    double user_bias_penalty, double item_bias_penalty,
                    std::optional<Tensor> user_inverse_count,
                    std::optional<Tensor> item_inverse_count, std::optional<double> clip_norm,
                    std::optional<Tensor> adam_step, double beta1, double beta2, double eps,
                    std::optional<Tensor> user_first, std::optional<Tensor> user_second,
                    std::optional<Tensor> item_first, std::optional<Tensor> item_second,
                    std::optional<Tensor> user_bias_first, std::optional<Tensor> user_bias_second,
                    std::optional<Tensor> item_bias_first, std::optional<Tensor> item_bias_second) {
  const char* op = kMfSgdEpoch;
  check(batch_size >= 1, op, "batch_size", "must be at least 1, not ", batch_size);
  check(std::isfinite(offset), op, "offset", "must be finite, not ", offset);
  check(steps >= 0, op, "steps", "must not be negative, not ", steps);
  check(inner == "pgd" || inner == "exact", op, "inner", "must be \"pgd\" or \"exact\", not \"",
        inner, '"');
  check_not_negative(op, "lr", lr);
  check_not_negative(op, "radius", radius);
  check_not_negative(op, "user_penalty", user_penalty);
  check_not_negative(op, "item_penalty", item_penalty);
  check_not_negative(op, "user_bias_penalty", user_bias_penalty);
  check_not_negative(op, "item_bias_penalty", item_bias_penalty);
  if (step_size) check_not_negative(op, "step_size", *step_size);
  if (clip_norm)
    check(std::isfinite(*clip_norm) && *clip_norm > 0.0, op, "clip_norm",
          "must be finite and positive, not ", *clip_norm);

  const auto size = [](const Tensor& tensor, std::int64_t axis) {
    return tensor.dim() > axis ? tensor.size(axis) : 0;
  };
  const std::int64_t d = size(user, 1);
  const double reach =
      static_cast<double>(steps) * step_size.value_or(1.0 / std::sqrt(static_cast<double>(d)));
  MfRequest request{
      .user = user,
      .item = item,
      .users = users,
      .items = items,
      .ratings = ratings,
      .order = order,
      .user_bias = user_bias,
      .item_bias = item_bias,
      .user_inverse_count = user_inverse_count,
      .item_inverse_count = item_inverse_count,
      .n_users = size(user, 0),
      .n_items = size(item, 0),
      .rows = size(ratings, 0),
      .visits = size(order, 0),
      .batch_size = batch_size,
      .d = static_cast<int>(d),
      .inner = steps == 0 || radius == 0.0 ? Inner::none
               : inner == "pgd"            ? Inner::pgd
                                           : Inner::exact,
      .settings = {.lr = static_cast<float>(lr),
                   .offset = static_cast<float>(offset),
                   .reach = static_cast<float>(reach),
                   .radius = static_cast<float>(radius),
                   .full_length = pgd_length(static_cast<float>(reach), static_cast<float>(radius),
                                             std::sqrt(static_cast<float>(d))),
                   .user_penalty = static_cast<float>(user_penalty),
                   .item_penalty = static_cast<float>(item_penalty),
                   .user_bias_penalty = static_cast<float>(user_bias_penalty),
                   .item_bias_penalty = static_cast<float>(item_bias_penalty)},
      .clip_norm = clip_norm,
      .adam_step = adam_step,
      .adam = {.lr = lr, .beta1 = beta1, .beta2 = beta2, .eps = eps},
      .user_moments = {user_first, user_second, user_bias_first, user_bias_second},
      .item_moments = {item_first, item_second, item_bias_first, item_bias_second},
  };
  check_mf_request(request);
  check_adam_request(request);
  return run(request);
}

// Where the tables stop being of use; nothing after it is applied.
[[noreturn]] inline void throw_not_finite(const char* what, std::int64_t batch,
                                          std::int64_t position, std::int64_t row) {
  std::ostringstream message;
  message << kMfSgdEpoch << ": the " << what << " is not finite in batch " << batch
          << ", at position " << position << " of order (row " << row
          << "): the tables are spoilt; lower lr or radius, or start from smaller factors";
  throw std::runtime_error(message.str());
}

}  // namespace scdr
