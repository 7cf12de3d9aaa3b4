// How a batch of mf_sgd_epoch_ updates the tables, on one block and on the grid.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/mf_sgd_epoch.h"

namespace scdr::cuda {
namespace {

__device__ float bias_of(const MfSide& side, std::int64_t row) {
  return side.table.bias != nullptr ? side.table.bias[row] : 0.0f;
}

__device__ float weight_of(const MfSide& side, std::int64_t row) {
  return side.inverse_count != nullptr ? side.inverse_count[row] : 1.0f;
}

__device__ double sum_over_warp(double value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// square_sum: of the whole gradient, where it is clipped.
__device__ MfUpdate update_of(const MfEpoch& epoch, std::int64_t batch, double square_sum) {
  double scale = 1.0;
  // As torch.nn.utils.clip_grad_norm_ does.
  if (epoch.clips) scale = ::min(1.0, epoch.clip_norm / (sqrt(square_sum) + 1e-6));
  if (!epoch.adam)
    return {.scale = static_cast<float>(epoch.lr * scale), .adam = false, .step = {}};
  AdamStep step = epoch.adam_step;
  step.size = epoch.adam_sizes[batch];
  return {.scale = static_cast<float>(scale), .adam = true, .step = step};
}

}  // namespace
}  // namespace scdr::cuda
