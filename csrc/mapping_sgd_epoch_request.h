// The arguments of mapping_sgd_epoch_, checked, as its CPU and CUDA sides take them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "adam.h"
#include "check.h"
#include "math/mapping_sgd_epoch.h"
#include "pgd_perturb_mlp_request.h"

namespace scdr {

constexpr const char* kMappingSgdEpoch = "mapping_sgd_epoch_";

// A table of parameters with Adam's moments; null where there is no such thing.
struct MappingParameter {
  float* x;
  float* first;
  float* second;
  std::int64_t count;
};

struct MappingRequest {
  Tensor user, item;             // float32 [U, d_source], [I, d_target]
  Tensor users, items, ratings;  // int32 [n], int32 [n], float32 [n]
  Tensor order;                  // int32 or int64 [visits]
  std::int64_t n_users, n_items, rows, visits, batch_size;
  PgdMlp mlp;
  bool train_user;
  double lr, weight_decay;
  std::optional<double> clip_norm;
  std::optional<Tensor> adam_step;  // int64 [], on the CPU: batches so far; or none for SGD
  AdamSettings adam;
  MappingParameter user_parameter;
  std::array<MappingParameter, 4> mapping;  // w1, b1, w2, b2

  // The update of a parameter of the mapping, or of a row of user, in a batch whose gradient has
  // this l2 norm. batch counts from 1 over the whole training.
  MappingUpdate update(bool of_mapping, double norm, std::int64_t batch) const {
    const double scale = clip_norm ? std::min(1.0, *clip_norm / (norm + 1e-6)) : 1.0;
    MappingUpdate how{.scale = static_cast<float>(scale),
                      .pull = of_mapping ? static_cast<float>(2.0 * weight_decay) : 0.0f,
                      .lr = static_cast<float>(lr),
                      .adam = adam_step.has_value(),
                      .step = {}};
    if (!how.adam) return how;
    how.step = adam_step_at(adam, batch);
    // A weight that every batch updates has eps beside the corrected root, as in torch.optim.Adam.
    if (of_mapping)
      how.step.eps = static_cast<float>(
          adam.eps * std::sqrt(1.0 - std::pow(adam.beta2, static_cast<double>(batch))));
    return how;
  }
};

namespace detail {

// There are moments of a parameter that is trained by Adam, and they look like it.
inline MappingParameter mapping_parameter(const char* name, const std::optional<Tensor>& tensor,
                                          bool adam, const std::optional<Tensor>& first,
                                          const std::optional<Tensor>& second, const Tensor& user) {
  const char* op = kMappingSgdEpoch;
  const bool wanted = adam && tensor.has_value();
  const auto moment = [&](const char* which, const std::optional<Tensor>& given) -> float* {
    const std::string called = std::string("adam.") + which + "[\"" + name + "\"]";
    check(given.has_value() == wanted, op, called.c_str(),
          wanted ? "is missing" : "is given, but nothing that it belongs to");
    if (!wanted) return nullptr;
    if (tensor->dim() == 2)
      check_tensor(op, called.c_str(), *given, ScalarType::Float,
                   {tensor->size(0), tensor->size(1)}, user);
    else
      check_tensor(op, called.c_str(), *given, ScalarType::Float, {tensor->size(0)}, user);
    return given->mutable_data_ptr<float>();
  };
  return {.x = tensor ? tensor->mutable_data_ptr<float>() : nullptr,
          .first = moment("first", first),
          .second = moment("second", second),
          .count = tensor ? tensor->numel() : 0};
}

}  // namespace detail

using RunMappingRequest = Tensor (*)(const MappingRequest&);

// The op as torch calls it; `run` does it on one kind of device.
template <RunMappingRequest run>
Tensor mapping_sgd_epoch(Tensor user, Tensor item, Tensor w1, std::optional<Tensor> b1, Tensor w2,
                         std::optional<Tensor> b2, Tensor users, Tensor items, Tensor ratings,
                         Tensor order, double lr, std::int64_t batch_size, std::int64_t steps,
                         std::optional<double> step_size, double radius, double weight_decay,
                         std::optional<double> clip_norm, bool train_user,
                         std::optional<Tensor> adam_step, double beta1, double beta2, double eps,
                         std::optional<Tensor> user_first, std::optional<Tensor> user_second,
                         std::optional<Tensor> w1_first, std::optional<Tensor> w1_second,
                         std::optional<Tensor> b1_first, std::optional<Tensor> b1_second,
                         std::optional<Tensor> w2_first, std::optional<Tensor> w2_second,
                         std::optional<Tensor> b2_first, std::optional<Tensor> b2_second) {
  const char* op = kMappingSgdEpoch;
  const PgdMlp mlp = check_mlp(op, user, item, w1, b1, w2, b2, steps, step_size, radius);
  check(batch_size >= 1, op, "batch_size", "must be at least 1, not ", batch_size);
  check_not_negative(op, "lr", lr);
  check_not_negative(op, "weight_decay", weight_decay);
  if (clip_norm)
    check(std::isfinite(*clip_norm) && *clip_norm > 0.0, op, "clip_norm",
          "must be finite and positive, not ", *clip_norm);
  check(ratings.dim() == 1, op, "ratings", "must have shape [n]");
  check(order.dim() == 1, op, "order", "must have one dimension");
  const std::int64_t rows = ratings.size(0), visits = order.size(0);
  check_tensor(op, "ratings", ratings, ScalarType::Float, {rows}, user);
  check_tensor(op, "users", users, ScalarType::Int, {rows}, user);
  check_tensor(op, "items", items, ScalarType::Int, {rows}, user);
  const ScalarType index = order.scalar_type();
  check(index == ScalarType::Int || index == ScalarType::Long, op, "order",
        "must have dtype Int or Long");
  check_tensor(op, "order", order, index, {visits}, user);
  check(visits <= rows, op, "order", "has ", visits, " rows, ratings has ", rows);

  const AdamSettings adam{.lr = lr, .beta1 = beta1, .beta2 = beta2, .eps = eps};
  const bool is_adam = adam_step.has_value();
  if (is_adam) {
    check_adam(op, adam);
    check(adam_step->scalar_type() == ScalarType::Long && adam_step->dim() == 0 &&
              adam_step->is_cpu(),
          op, "adam.step", "must be one int64 on the CPU");
    const std::int64_t batches = *adam_step->const_data_ptr<std::int64_t>();
    check(batches >= 0, op, "adam.step", "must not be negative, not ", batches);
  }
  const auto trained = train_user ? std::optional<Tensor>(user) : std::nullopt;
  const auto parameter = [&](const char* name, const std::optional<Tensor>& tensor,
                             const std::optional<Tensor>& first,
                             const std::optional<Tensor>& second) {
    return detail::mapping_parameter(name, tensor, is_adam, first, second, user);
  };
  return run({.user = user,
              .item = item,
              .users = users,
              .items = items,
              .ratings = ratings,
              .order = order,
              .n_users = user.size(0),
              .n_items = item.size(0),
              .rows = rows,
              .visits = visits,
              .batch_size = batch_size,
              .mlp = mlp,
              .train_user = train_user,
              .lr = lr,
              .weight_decay = weight_decay,
              .clip_norm = clip_norm,
              .adam_step = adam_step,
              .adam = adam,
              .user_parameter = parameter("user", trained, user_first, user_second),
              .mapping = {parameter("w1", w1, w1_first, w1_second),
                          parameter("b1", b1, b1_first, b1_second),
                          parameter("w2", w2, w2_first, w2_second),
                          parameter("b2", b2, b2_first, b2_second)}});
}

// Where the parameters stop being of use.
[[noreturn]] inline void throw_mapping_spoilt(const char* what, std::int64_t batch,
                                              std::int64_t position, std::int64_t row) {
  std::ostringstream message;
  message << kMappingSgdEpoch << ": the " << what << " is not finite in batch " << batch
          << ", at position " << position << " of order (row " << row
          << "): the tables are spoilt; lower lr or radius, or set clip_norm";
  throw std::runtime_error(message.str());
}

}  // namespace scdr
