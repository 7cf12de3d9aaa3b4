// mf_sgd_epoch_ on CUDA, the torch side: checks, memory, sorting, the current stream.
#include "cuda/mf_sgd_epoch.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "mf_sgd_epoch_request.h"

namespace scdr {
namespace {

Tensor scratch(const Tensor& like, std::int64_t count, ScalarType dtype) {
  return torch::stable::new_empty(like, {count}, dtype);
}

// Values and indices of a stable ascending sort.
std::pair<Tensor, Tensor> stable_sort(const Tensor& keys) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(keys), from(std::optional<bool>(true)),
                                    from(std::int64_t{-1}), from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

void throw_if_wrong(const cuda::MfWrong& wrong, const cuda::MfRatings& ratings, int device,
                    void* stream) {
  const auto outside = [&](const char* name, const std::int32_t* narrow, const std::int64_t* wide,
                           std::int64_t at, std::int64_t n) {
    if (at == cuda::kNone) return;
    check(false, kMfSgdEpoch, name, "holds ", cuda::read_index(narrow, wide, at, device, stream),
          " at row ", at, ", outside [0, ", n, ")");
  };
  outside("users", ratings.users, nullptr, wrong.users, ratings.n_users);
  outside("items", ratings.items, nullptr, wrong.items, ratings.n_items);
  check(wrong.ratings == cuda::kNone, kMfSgdEpoch, "ratings", "is not finite at row ",
        wrong.ratings);
  outside("order", ratings.order32, ratings.order64, wrong.order, ratings.rows);
}

Tensor run_on_cuda(const MfRequest& request) {
  const Tensor& user = request.user;
  check(!request.adam_step, kMfSgdEpoch, "adam", "works on the CPU only");
  check(!request.clip_norm, kMfSgdEpoch, "clip_norm", "works on the CPU only");
  const int device = user.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = torch::stable::accelerator::getCurrentStream(device).nativeHandle();

  const bool wide = request.order.scalar_type() == ScalarType::Long;
  const cuda::MfRatings ratings{
      .users = request.users.const_data_ptr<std::int32_t>(),
      .items = request.items.const_data_ptr<std::int32_t>(),
      .ratings = request.ratings.const_data_ptr<float>(),
      .order32 = wide ? nullptr : request.order.const_data_ptr<std::int32_t>(),
      .order64 = wide ? request.order.const_data_ptr<std::int64_t>() : nullptr,
      .rows = request.rows,
      .visits = request.visits,
      .n_users = request.n_users,
      .n_items = request.n_items,
  };
  const Tensor status = scratch(user, 4, ScalarType::Long);
  throw_if_wrong(cuda::mf_check(ratings, status.mutable_data_ptr<std::int64_t>(), device, stream),
                 ratings, device, stream);
  Tensor loss = torch::stable::new_zeros(user, {}, ScalarType::Double);
  const std::int64_t visits = request.visits;
  if (visits == 0) return loss;

  const std::int64_t batch = std::min(request.batch_size, visits), d = request.d;
  const std::int64_t widest = std::max(request.n_users, request.n_items);
  check((visits / batch + 1) < std::numeric_limits<std::int64_t>::max() / widest, kMfSgdEpoch,
        "batch_size", "is too small for so many rows");
  Tensor user_keys = scratch(user, visits, ScalarType::Long);
  Tensor item_keys = scratch(user, visits, ScalarType::Long);
  cuda::mf_keys(ratings, batch, user_keys.mutable_data_ptr<std::int64_t>(),
                item_keys.mutable_data_ptr<std::int64_t>(), device, stream);
  const auto [sorted_user_keys, sorted_users] = stable_sort(user_keys);
  const auto [sorted_item_keys, sorted_items] = stable_sort(item_keys);

  const Tensor user_step = scratch(user, batch * d, ScalarType::Float);
  const Tensor item_step = scratch(user, batch * d, ScalarType::Float);
  const Tensor user_bias_step = scratch(user, batch, ScalarType::Float);
  const Tensor item_bias_step = scratch(user, batch, ScalarType::Float);
  const Tensor error = scratch(user, visits, ScalarType::Float);
  const Tensor block_loss = scratch(user, cuda::kLossBlocks, ScalarType::Double);
  const cuda::MfEpoch epoch{
      .ratings = ratings,
      .user = {.factors = user.mutable_data_ptr<float>(),
               .bias = MfRequest::write(request.user_bias),
               .inverse_count = MfRequest::read(request.user_inverse_count),
               .step = user_step.mutable_data_ptr<float>(),
               .bias_step = user_bias_step.mutable_data_ptr<float>(),
               .keys = sorted_user_keys.const_data_ptr<std::int64_t>(),
               .sorted = sorted_users.const_data_ptr<std::int64_t>()},
      .item = {.factors = request.item.mutable_data_ptr<float>(),
               .bias = MfRequest::write(request.item_bias),
               .inverse_count = MfRequest::read(request.item_inverse_count),
               .step = item_step.mutable_data_ptr<float>(),
               .bias_step = item_bias_step.mutable_data_ptr<float>(),
               .keys = sorted_item_keys.const_data_ptr<std::int64_t>(),
               .sorted = sorted_items.const_data_ptr<std::int64_t>()},
      .settings = request.settings,
      .inner = request.inner,
      .d = request.d,
      .batch_size = batch,
      .error = error.mutable_data_ptr<float>(),
      .not_finite = status.mutable_data_ptr<std::int64_t>(),
      .block_loss = block_loss.mutable_data_ptr<double>(),
      .loss = loss.mutable_data_ptr<double>(),
  };
  const std::int64_t bad = cuda::mf_epoch(epoch, device, stream);
  if (bad != cuda::kNone)
    throw_not_finite("error", bad / batch, bad,
                     cuda::read_index(ratings.order32, ratings.order64, bad, device, stream));
  return loss;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("mf_sgd_epoch_", TORCH_BOX(&scdr::mf_sgd_epoch<scdr::run_on_cuda>));
}
