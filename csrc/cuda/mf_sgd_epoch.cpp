// mf_sgd_epoch_ on CUDA, the torch side: checks, memory, sorting, the current stream.
#include "cuda/mf_sgd_epoch.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "cuda/ratings_request.h"
#include "cuda/sort.h"
#include "cuda/stream.h"
#include "mf_sgd_epoch_request.h"
#include "slices.h"

namespace scdr {
namespace {

// Some milliseconds of work: then the host looks at what came of it, and may stop.
constexpr std::int64_t kBatchesOfSlice = 1024;

Tensor scratch(const Tensor& like, std::int64_t count, ScalarType dtype) {
  return torch::stable::new_empty(like, {count}, dtype);
}

template <class T>
T* at(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// What one side of the factorisation needs for an epoch on the grid.
class GridSide {
 public:
  // keys [visits] as of mf_prepare.
  GridSide(const Tensor& keys, std::int64_t batch, std::int64_t d, std::int64_t rows, int device,
           void* stream)
      : places_(scratch(keys, keys.numel() * sizeof(cuda::MfPlace), ScalarType::Byte)),
        step_(scratch(keys, batch * d, ScalarType::Float)),
        bias_step_(scratch(keys, batch, ScalarType::Float)) {
    const auto [rising, sorted] = stable_sort(keys);
    cuda::mf_places(at<std::int64_t>(rising), at<std::int64_t>(sorted), keys.numel(), batch, rows,
                    at<cuda::MfPlace>(places_), device, stream);
  }

  void add_to(cuda::MfSide& side) const {
    side.step = at<float>(step_);
    side.bias_step = at<float>(bias_step_);
    side.places = at<cuda::MfPlace>(places_);
  }

 private:
  Tensor places_, step_, bias_step_;
};

cuda::MfTable table_of(float* factors, float* bias, std::int64_t d) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(factors) % (2 * sizeof(float)) == 0;
  return {factors, bias, d % 2 == 0 && aligned};
}

cuda::MfSide side_of(const cuda::MfTable& table, const MfMomentTensors& moments,
                     const std::optional<Tensor>& inverse_count) {
  const auto pair = [](const std::optional<Tensor>& factors, const std::optional<Tensor>& bias) {
    return cuda::MfTable{MfRequest::write(factors), MfRequest::write(bias), false};
  };
  return {.table = table,
          .first = pair(moments.first, moments.bias_first),
          .second = pair(moments.second, moments.bias_second),
          .inverse_count = MfRequest::read(inverse_count),
          .step = nullptr,
          .bias_step = nullptr,
          .places = nullptr};
}

// Of the next batches.
void send_adam_sizes(const MfRequest& request, std::int64_t batches, float* to, int device,
                     void* stream) {
  const std::int64_t before = *request.adam_step->const_data_ptr<std::int64_t>();
  std::vector<float> sizes;
  for (std::int64_t batch = 1; batch <= batches; ++batch)
    sizes.push_back(adam_step_at(request.adam, before + batch).size);
  cuda::mf_copy_sizes(sizes.data(), to, batches, device, stream);
}

Tensor run_on_cuda(const MfRequest& request) {
  const Tensor& user = request.user;
  const int device = user.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = cuda::current_stream(device);

  const cuda::Ratings ratings = ratings_of(request);
  const Tensor status = scratch(user, sizeof(cuda::WrongRatings), ScalarType::Byte);
  throw_if_wrong(kMfSgdEpoch,
                 cuda::mf_check(ratings, at<cuda::WrongRatings>(status), device, stream), ratings,
                 [&](const std::int32_t* narrow, const std::int64_t* wide, std::int64_t place) {
                   return cuda::read_index(narrow, wide, place, device, stream);
                 });
  Tensor loss = torch::stable::new_zeros(user, {}, ScalarType::Double);
  const std::int64_t visits = request.visits;
  if (visits == 0) return loss;

  const std::int64_t batch = std::min(request.batch_size, visits), d = request.d;
  const std::int64_t widest = std::max(request.n_users, request.n_items);
  check((visits / batch + 1) < std::numeric_limits<std::int64_t>::max() / widest, kMfSgdEpoch,
        "batch_size", "is too small for so many rows");
  check(batch < cuda::kMostVisits, kMfSgdEpoch, "batch_size", "must be below 2^31 on CUDA");
  const Tensor visited = scratch(user, visits * sizeof(cuda::MfVisit), ScalarType::Byte);
  const Tensor user_keys = scratch(user, visits, ScalarType::Long);
  const Tensor item_keys = scratch(user, visits, ScalarType::Long);
  cuda::mf_prepare(ratings, batch, at<cuda::MfVisit>(visited), at<std::int64_t>(user_keys),
                   at<std::int64_t>(item_keys), device, stream);

  cuda::MfSide user_side =
      side_of(table_of(at<float>(user), MfRequest::write(request.user_bias), d),
              request.user_moments, request.user_inverse_count);
  cuda::MfSide item_side =
      side_of(table_of(at<float>(request.item), MfRequest::write(request.item_bias), d),
              request.item_moments, request.item_inverse_count);
  std::optional<GridSide> users, items;
  if (cuda::mf_fits_block(batch, request.d, device)) {
    for (const bool of_users : {true, false}) {
      const auto [rising, sorted] = stable_sort(of_users ? user_keys : item_keys);
      cuda::mf_link(at<std::int64_t>(rising), at<std::int64_t>(sorted), visits, batch,
                    at<cuda::MfVisit>(visited), of_users, device, stream);
    }
  } else {
    users.emplace(user_keys, batch, d, request.n_users, device, stream);
    items.emplace(item_keys, batch, d, request.n_items, device, stream);
    users->add_to(user_side);
    items->add_to(item_side);
  }
  const Tensor error = scratch(user, visits, ScalarType::Float);
  const Tensor adam_sizes =
      scratch(user, request.adam_step ? kBatchesOfSlice : 0, ScalarType::Float);
  const Tensor squares = scratch(user, request.clip_norm ? 4 * batch : 0, ScalarType::Double);
  cuda::MfEpoch epoch{
      .visits = at<cuda::MfVisit>(visited),
      .user = user_side,
      .item = item_side,
      .settings = request.settings,
      .inner = request.inner,
      .d = request.d,
      .batch_size = batch,
      .error = at<float>(error),
      .bad = at<cuda::MfBad>(status),
      .clips = request.clip_norm.has_value(),
      .adam = request.adam_step.has_value(),
      .lr = request.adam.lr,
      .clip_norm = request.clip_norm.value_or(0.0),
      .adam_step = adam_step_at(request.adam, 1),
      .adam_sizes = at<float>(adam_sizes),
      .squares = at<double>(squares),
      .sums_of_squares = at<double>(squares) + 2 * batch,
  };
  if (request.gathers()) epoch.settings.lr = 1.0f;

  Slices slices(visits);
  for (std::int64_t begin = 0; begin < visits; begin += kBatchesOfSlice * batch) {
    const std::int64_t end = std::min(begin + kBatchesOfSlice * batch, visits);
    const std::int64_t batches = (end - begin + batch - 1) / batch;
    if (request.adam_step) send_adam_sizes(request, batches, at<float>(adam_sizes), device, stream);
    const cuda::MfBad bad = cuda::mf_slice(epoch, begin, end, device, stream);
    const bool error_first = bad.error < bad.result;
    const std::int64_t bad_at = std::min(bad.error, bad.result);
    if (request.adam_step)
      *request.adam_step->mutable_data_ptr<std::int64_t>() +=
          bad_at == cuda::kNowhere ? batches : (bad_at - begin) / batch + (error_first ? 0 : 1);
    if (bad_at != cuda::kNowhere)
      throw_not_finite(error_first ? "error" : "result", bad_at / batch, bad_at,
                       cuda::read_index(ratings.order32, ratings.order64, bad_at, device, stream));
    slices.passed(end);
  }
  const Tensor part = scratch(user, cuda::kLossBlocks, ScalarType::Double);
  cuda::mf_loss(at<float>(error), visits, at<double>(part), at<double>(loss), device, stream);
  return loss;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("mf_sgd_epoch_", TORCH_BOX(&scdr::mf_sgd_epoch<scdr::run_on_cuda>));
}
