// recommend_topk on CUDA, the torch side: checks, memory, sorting, the current stream.
#include "cuda/recommend_topk.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>

#include "cuda/sort.h"
#include "cuda/stream.h"
#include "recommend_topk_request.h"

namespace scdr {
namespace {

constexpr std::int64_t kMaxBlocks = 1 << 16;
// Of candidates, where they do not fit into shared memory.
constexpr std::int64_t kCandidateBytes = 256 << 20;

TopkResult run_on_cuda(const TopkRequest& request) {
  const Tensor& user = request.user_vectors;
  const int device = user.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = cuda::current_stream(device);

  const bool wide =
      request.exclude_items && request.exclude_items->scalar_type() == ScalarType::Long;
  const bool narrow = request.exclude_items && !wide;
  const cuda::TopkArguments arguments{
      .users = user.const_data_ptr<float>(),
      .items = request.item_vectors.const_data_ptr<float>(),
      .offsets = request.offsets ? request.offsets->const_data_ptr<float>() : nullptr,
      .exclude_offsets = request.exclude_offsets
                             ? request.exclude_offsets->const_data_ptr<std::int64_t>()
                             : nullptr,
      .exclude32 = narrow ? request.exclude_items->const_data_ptr<std::int32_t>() : nullptr,
      .exclude64 = wide ? request.exclude_items->const_data_ptr<std::int64_t>() : nullptr,
      .n_users = request.n_users,
      .n_items = request.n_items,
      .n_excluded = request.n_excluded,
      .d = request.d,
  };
  const Tensor status = torch::stable::new_empty(
      user, {static_cast<std::int64_t>(sizeof(cuda::TopkFound) / sizeof(std::int64_t))},
      ScalarType::Long);
  const cuda::TopkFound found = cuda::topk_check(
      arguments, reinterpret_cast<cuda::TopkFound*>(status.mutable_data_ptr<std::int64_t>()),
      device, stream);
  check_magnitudes({.user = found.user, .item = found.item, .offset = found.offset}, request.d);
  check_exclude_offsets(found.falls == 0);
  if (request.n_excluded > 0) {
    check_excluded_item(found.lowest, request.n_items);
    check_excluded_item(found.highest, request.n_items);
  }

  Tensor scores = torch::stable::new_empty(user, {request.n_users, request.k});
  Tensor items = torch::stable::new_empty(user, {request.n_users, request.k}, ScalarType::Long);
  if (request.n_users == 0 || request.k == 0) return {scores, items};
  std::optional<Tensor> excluded;
  if (request.n_excluded > 0) {
    Tensor keys = torch::stable::new_empty(user, {request.n_excluded}, ScalarType::Long);
    cuda::topk_exclusion_keys(arguments, keys.mutable_data_ptr<std::int64_t>(), device, stream);
    excluded = stable_sort(keys).first;
  }
  const std::int64_t k = std::clamp<std::int64_t>(request.n_items, 1, request.k);
  const std::int64_t room = cuda::topk_room(k);
  std::int64_t blocks = std::min((request.n_users - 1) / cuda::kTopkUsers + 1, kMaxBlocks);
  std::optional<Tensor> candidates;
  if (room > cuda::kTopkSharedRoom) {
    const std::int64_t bytes =
        cuda::kTopkUsers * room * static_cast<std::int64_t>(sizeof(std::uint64_t));
    blocks = std::clamp<std::int64_t>(kCandidateBytes / bytes, 1, blocks);
    candidates =
        torch::stable::new_empty(user, {blocks * cuda::kTopkUsers * room}, ScalarType::Long);
  }
  cuda::topk_recommend(arguments, excluded ? excluded->const_data_ptr<std::int64_t>() : nullptr,
                       {.scores = scores.mutable_data_ptr<float>(),
                        .items = items.mutable_data_ptr<std::int64_t>(),
                        .width = request.k,
                        .k = k,
                        .room = room,
                        .candidates = candidates ? reinterpret_cast<std::uint64_t*>(
                                                       candidates->mutable_data_ptr<std::int64_t>())
                                                 : nullptr,
                        .blocks = blocks},
                       device, stream);
  return {scores, items};
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("recommend_topk", TORCH_BOX(&scdr::recommend_topk<scdr::run_on_cuda>));
}
