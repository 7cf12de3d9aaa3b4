// mapping_sgd_epoch_ on CUDA, the torch side: checks, memory, sorting, the current stream.
#include "cuda/mapping_sgd_epoch.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cuda/ratings_request.h"
#include "cuda/sort.h"
#include "cuda/stream.h"
#include "mapping_sgd_epoch_request.h"
#include "slices.h"

namespace scdr {
namespace {

// A launch of small batches takes so many rows: what may pass between two looks at Ctrl-C.
constexpr std::int64_t kRowsOfLaunch = 1 << 17;

struct Place {
  int device;
  void* stream;
};

std::int64_t read_index(const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at,
                        Place place) {
  std::int32_t short_index = 0;
  std::int64_t index = 0;
  if (narrow != nullptr) {
    cuda::copy_to_host(&short_index, narrow + at, sizeof(short_index), place.device, place.stream);
    return short_index;
  }
  cuda::copy_to_host(&index, wide + at, sizeof(index), place.device, place.stream);
  return index;
}

void check_values(const MappingRequest& request, const cuda::Ratings& ratings, Place place) {
  const char* op = kMappingSgdEpoch;
  const float* tensors[6] = {request.user.const_data_ptr<float>(),
                             request.item.const_data_ptr<float>()};
  std::int64_t counts[6] = {request.user.numel(), request.item.numel()};
  for (std::size_t i = 0; i < 4; ++i) {
    tensors[i + 2] = request.mapping[i].x;
    counts[i + 2] = request.mapping[i].count;
  }
  const Tensor status = torch::stable::new_empty(
      request.user, {sizeof(cuda::MappingWrong) / sizeof(std::int64_t)}, ScalarType::Long);
  const cuda::MappingWrong wrong = cuda::mapping_check(
      ratings, tensors, counts, 6,
      reinterpret_cast<cuda::MappingWrong*>(status.mutable_data_ptr<std::int64_t>()), place.device,
      place.stream);
  throw_if_wrong(op, wrong.ratings, ratings,
                 [&](const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at) {
                   return read_index(narrow, wide, at, place);
                 });
  constexpr const char* names[] = {"user", "item", "w1", "b1", "w2", "b2"};
  if (wrong.tensor != cuda::kNowhere)
    check(false, op, names[wrong.tensor], "holds a value that is not finite");
}

[[noreturn]] void report(const MappingRequest& request, const cuda::MappingEpoch& epoch,
                         const cuda::MappingState& state, Place place) {
  const std::int64_t begin = state.batch * epoch.batch_size;
  std::vector<float> errors(
      static_cast<std::size_t>(std::min(epoch.batch_size, request.visits - begin)));
  cuda::copy_to_host(errors.data(), epoch.error, errors.size() * sizeof(float), place.device,
                     place.stream);
  std::size_t worst = 0;
  for (std::size_t i = 0; i < errors.size() && std::isfinite(errors[worst]); ++i)
    if (!(std::fabs(errors[i]) <= std::fabs(errors[worst]))) worst = i;
  const std::int64_t position = begin + static_cast<std::int64_t>(worst);
  constexpr const char* what[] = {"", "error", "gradient", "update"};
  throw_mapping_spoilt(what[state.fault], state.batch, position,
                       read_index(epoch.ratings.order32, epoch.ratings.order64, position, place));
}

Tensor run_on_cuda(const MappingRequest& request) {
  const Tensor& user = request.user;
  const int device = user.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Place place{device, cuda::current_stream(device)};

  const cuda::Ratings ratings = ratings_of(request);
  check_values(request, ratings, place);
  Tensor result = torch::stable::new_zeros(user, {}, ScalarType::Double);
  const std::int64_t visits = request.visits;
  if (visits == 0) return result;

  const PgdMlp& mlp = request.mlp;
  const std::int64_t batch = std::min(request.batch_size, visits);
  const std::int64_t batches = (visits + batch - 1) / batch;
  std::vector<Tensor> kept;
  const auto floats = [&](std::int64_t count) {
    kept.push_back(torch::stable::new_empty(user, {count}, ScalarType::Float));
    return kept.back().mutable_data_ptr<float>();
  };
  const auto longs = [&](std::int64_t count) {
    kept.push_back(torch::stable::new_empty(user, {count}, ScalarType::Long));
    return kept.back();
  };
  cuda::MappingEpoch epoch{};
  epoch.ratings = ratings;
  epoch.item = request.item.const_data_ptr<float>();
  epoch.user_vectors = user.mutable_data_ptr<float>();
  const auto parameter = [](const MappingParameter& p) {
    return cuda::MappingParameter{.x = p.x, .first = p.first, .second = p.second};
  };
  epoch.user = parameter(request.user_parameter);
  for (std::size_t i = 0; i < 4; ++i) epoch.part[i] = parameter(request.mapping[i]);
  epoch.mlp = mlp;
  epoch.batch_size = batch;
  epoch.clip_norm = request.clip_norm.value_or(std::numeric_limits<double>::infinity());

  std::int64_t* adam_step =
      request.adam_step ? request.adam_step->mutable_data_ptr<std::int64_t>() : nullptr;
  const std::int64_t steps_before = adam_step != nullptr ? *adam_step : 0;
  for (int which = 0; which < 2; ++which)
    epoch.update[which] = request.update(which == 0, 0.0, steps_before + 1);
  if (adam_step != nullptr) {
    std::vector<AdamStep> steps;
    for (std::int64_t i = 0; i < batches; ++i)
      for (int which = 0; which < 2; ++which)
        steps.push_back(request.update(which == 0, 0.0, steps_before + 1 + i).step);
    const auto bytes = steps.size() * sizeof(AdamStep);
    float* to = floats(static_cast<std::int64_t>(bytes / sizeof(float)));
    cuda::copy_to_device(to, steps.data(), bytes, device, place.stream);
    epoch.adam_steps = reinterpret_cast<const AdamStep*>(to);
  }
  if (request.train_user) {
    check(batches < std::numeric_limits<std::int64_t>::max() / request.n_users, kMappingSgdEpoch,
          "batch_size", "is too small for so many rows");
    const Tensor keys = longs(visits);
    cuda::mapping_keys(ratings, batch, keys.mutable_data_ptr<std::int64_t>(), device, place.stream);
    const auto [sorted_keys, sorted] = stable_sort(keys);
    kept.push_back(sorted_keys);
    kept.push_back(sorted);
    epoch.keys = sorted_keys.const_data_ptr<std::int64_t>();
    epoch.sorted = sorted.const_data_ptr<std::int64_t>();
  }
  epoch.error = floats(batch);
  epoch.user_gradient = floats(batch * mlp.d_source);
  epoch.user_sum = floats(batch * mlp.d_source);
  epoch.over_mapping = cuda::mapping_gradient(mlp, batch, floats);
  epoch.state = reinterpret_cast<cuda::MappingState*>(
      longs((sizeof(cuda::MappingState) + 7) / 8).mutable_data_ptr<std::int64_t>());

  cuda::mapping_start(epoch, device, place.stream);
  cuda::MappingState state{};
  Slices slices(visits);
  const std::int64_t of_launch = std::max<std::int64_t>(kRowsOfLaunch / batch, 1);
  for (std::int64_t begin = 0; begin < batches; begin += of_launch) {
    const std::int64_t end = std::min(begin + of_launch, batches);
    state = cuda::mapping_batches(epoch, begin, end, device, place.stream);
    const bool fine = state.fault == cuda::kFine;
    if (adam_step != nullptr)
      *adam_step =
          steps_before + (fine ? end : state.batch + (state.fault == cuda::kUpdate ? 1 : 0));
    if (!fine) report(request, epoch, state, place);
    slices.passed(std::min(end * batch, visits));
  }
  cuda::copy_to_device(result.mutable_data_ptr<double>(), &state.loss, sizeof(double), device,
                       place.stream);
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("mapping_sgd_epoch_", TORCH_BOX(&scdr::mapping_sgd_epoch<scdr::run_on_cuda>));
}
