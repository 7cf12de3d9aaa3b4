// mapping_sgd_epoch_ on the CPU: checks, batches, threads. The arithmetic of a row is in math/, the
// loops over rows in mapping_sgd_epoch_level.cpp.
#include "cpu/mapping_sgd_epoch.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/block_sums.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "mapping_sgd_epoch_request.h"
#include "slices.h"

namespace scdr {

MappingKernel pick_mapping_kernel() {
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return avx512::mapping_kernel();
    case SimdLevel::avx2:
      return avx2::mapping_kernel();
#endif
    default:
      return scalar::mapping_kernel();
  }
}

namespace {

void check_finite(const char* name, const float* x, std::int64_t count) {
  const float* bad = std::find_if(x, x + count, [](float value) { return !std::isfinite(value); });
  if (bad == x + count) return;
  check(false, kMappingSgdEpoch, name, "holds ", *bad, " at element ", bad - x,
        "; it must be finite");
}

template <class Index>
void check_range(const char* name, const Index* index, std::int64_t rows, std::int64_t n) {
  const Index* bad = std::find_if(index, index + rows, [n](Index i) { return i < 0 || i >= n; });
  if (bad == index + rows) return;
  check(false, kMappingSgdEpoch, name, "holds ", *bad, " at row ", bad - index, ", outside [0, ", n,
        ")");
}

void check_values(const MappingRequest& request) {
  const auto finite = [](const char* name, const Tensor& tensor) {
    check_finite(name, tensor.const_data_ptr<float>(), tensor.numel());
  };
  check_range("users", request.users.const_data_ptr<std::int32_t>(), request.rows, request.n_users);
  check_range("items", request.items.const_data_ptr<std::int32_t>(), request.rows, request.n_items);
  finite("ratings", request.ratings);
  finite("user", request.user);
  finite("item", request.item);
  constexpr const char* names[] = {"w1", "b1", "w2", "b2"};
  for (std::size_t i = 0; i < request.mapping.size(); ++i)
    check_finite(names[i], request.mapping[i].x, request.mapping[i].count);
}

// One epoch; Index is the type of order.
template <class Index>
class Epoch {
 public:
  explicit Epoch(const MappingRequest& request)
      : request_(request),
        kernel_(pick_mapping_kernel()),
        order_(request.order.const_data_ptr<Index>()),
        batch_(std::min(request.batch_size, std::max<std::int64_t>(request.visits, 1))),
        visits_(static_cast<std::size_t>(request.visits)),
        error_(static_cast<std::size_t>(batch_)),
        user_gradient_(static_cast<std::size_t>(batch_ * request.mlp.d_source)),
        slot_user_(static_cast<std::size_t>(batch_)),
        sums_(batch_, kMappingRows, kernel_.size_of_sums(request.mlp)),
        slot_(request.train_user ? static_cast<std::size_t>(request.n_users) : 0, kNoSlot) {
    for (std::size_t i = 0; i < 4; ++i) {
      part_[i] = size_;
      size_ += request.mapping[i].count;
    }
    gradient_.resize(static_cast<std::size_t>(size_));
    check_range("order", order_, request.visits, request.rows);
    const auto* users = request.users.const_data_ptr<std::int32_t>();
    const auto* items = request.items.const_data_ptr<std::int32_t>();
    const auto* ratings = request.ratings.const_data_ptr<float>();
    for (std::int64_t at = 0; at < request.visits; ++at)
      visits_[at] = {users[order_[at]], items[order_[at]], ratings[order_[at]]};
  }

  double run() {
    double loss = 0.0;
    Slices slices(request_.visits);
    for (std::int64_t begin = 0; begin < request_.visits; begin += batch_) {
      const std::int64_t end = std::min(begin + batch_, request_.visits);
      compute(begin, end);
      const double batch_loss = kernel_.square_sum(error_.data(), end - begin);
      if (!std::isfinite(batch_loss)) report("error", begin, end);
      const std::int64_t slots = request_.train_user ? gather_users(begin, end) : 0;
      double norm =
          std::sqrt(kernel_.square_sum(gradient_.data(), size_) +
                    kernel_.square_sum(user_gradient_.data(), slots * request_.mlp.d_source));
      if (!std::isfinite(norm)) report("gradient", begin, end);
      loss += batch_loss;
      if (!update(slots, norm)) report("update", begin, end);
      slices.passed(end);
    }
    return loss;
  }

 private:
  static constexpr std::int32_t kNoSlot = -1;

  // The gradient of the batch over the mapping, and each row's over its user.
  void compute(std::int64_t begin, std::int64_t end) {
    const float scale = 2.0f / static_cast<float>(end - begin);
    const float* sums =
        sums_.run(end - begin, rows_worth_thread(request_.mlp),
                  [&](std::int64_t from, std::int64_t to, float* add_to) {
                    kernel_.compute(request_.mlp,
                                    {.user = request_.user.const_data_ptr<float>(),
                                     .item = request_.item.const_data_ptr<float>(),
                                     .visits = visits_.data() + begin + from,
                                     .count = static_cast<int>(to - from),
                                     .scale = scale,
                                     .weight = nullptr},
                                    {.error = error_.data() + from,
                                     .user = user_gradient_.data() + from * request_.mlp.d_source,
                                     .item = nullptr,
                                     .sums = add_to});
                  });
    const auto part = [&](std::size_t i) {
      return request_.mapping[i].x != nullptr ? gradient_.data() + part_[i] : nullptr;
    };
    kernel_.unpack(request_.mlp, sums, {part(0), part(1), part(2), part(3)});
  }

  // Sums up the gradients of each user's rows, in order of visit; they come to lie together, in
  // order of their first visits. Returns their number.
  std::int64_t gather_users(std::int64_t begin, std::int64_t end) {
    const std::int64_t d = request_.mlp.d_source;
    std::int32_t slots = 0;
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int32_t user = visits_[at].user;
      const float* from = user_gradient_.data() + (at - begin) * d;
      std::int32_t& slot = slot_[static_cast<std::size_t>(user)];
      if (slot == kNoSlot) {
        slot = slots++;
        slot_user_[slot] = user;
        std::copy_n(from, d, user_gradient_.data() + slot * d);
      } else {
        float* to = user_gradient_.data() + slot * d;
        for (std::int64_t k = 0; k < d; ++k) to[k] += from[k];
      }
    }
    for (std::int32_t i = 0; i < slots; ++i)
      slot_[static_cast<std::size_t>(slot_user_[i])] = kNoSlot;
    return slots;
  }

  bool update(std::int64_t slots, double norm) {
    std::int64_t batch = 0;
    if (request_.adam_step) batch = ++*request_.adam_step->mutable_data_ptr<std::int64_t>();
    const auto apply = [&](const MappingParameter& parameter, const std::int32_t* number,
                           std::int64_t rows, std::int64_t width, const float* gradient,
                           const MappingUpdate& how) {
      return kernel_.update(parameter.x, parameter.first, parameter.second, number, rows,
                            static_cast<int>(width), gradient, how);
    };
    bool finite = true;
    constexpr std::int32_t whole = 0;
    const MappingUpdate of_mapping = request_.update(true, norm, batch);
    for (std::size_t i = 0; i < 4; ++i) {
      const MappingParameter& parameter = request_.mapping[i];
      finite &= apply(parameter, &whole, parameter.x != nullptr ? 1 : 0, parameter.count,
                      gradient_.data() + part_[i], of_mapping);
    }
    if (request_.train_user)
      finite &= apply(request_.user_parameter, slot_user_.data(), slots, request_.mlp.d_source,
                      user_gradient_.data(), request_.update(false, norm, batch));
    return finite;
  }

  // Names the first row whose error is not finite, or the one with the largest error.
  [[noreturn]] void report(const char* what, std::int64_t begin, std::int64_t end) {
    const float* errors = error_.data();
    std::int64_t worst = 0;
    for (std::int64_t i = 0; i < end - begin && std::isfinite(errors[worst]); ++i)
      if (!(std::fabs(errors[i]) <= std::fabs(errors[worst]))) worst = i;
    throw_mapping_spoilt(what, begin / batch_, begin + worst,
                         static_cast<std::int64_t>(order_[begin + worst]));
  }

  const MappingRequest& request_;
  MappingKernel kernel_;
  const Index* order_;
  std::int64_t batch_;
  std::int64_t part_[4]{}, size_ = 0;  // of the gradient over the mapping
  Scratch<MappingVisit> visits_;
  Scratch<float> error_, user_gradient_;
  Scratch<std::int32_t> slot_user_;
  BlockSums sums_;
  std::vector<std::int32_t> slot_;  // of each user in the batch
  std::vector<float> gradient_;     // over the mapping
};

Tensor run_on_cpu(const MappingRequest& request) {
  check_values(request);
  const double loss = request.order.scalar_type() == ScalarType::Long
                          ? Epoch<std::int64_t>(request).run()
                          : Epoch<std::int32_t>(request).run();
  Tensor result = torch::stable::new_empty(request.user, {}, ScalarType::Double);
  *result.mutable_data_ptr<double>() = loss;
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("mapping_sgd_epoch_", TORCH_BOX(&scdr::mapping_sgd_epoch<scdr::run_on_cpu>));
}
