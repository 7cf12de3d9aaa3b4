// The mapping's weights in shared memory, where they fit.
#pragma once

#include <cstddef>

#include "cuda/launch.h"
#include "math/pgd_perturb_mlp.h"

namespace scdr::cuda {

// Copies count weights to `to` and moves it behind them.
inline __device__ const float* copy_weights(const float* from, int count, float*& to) {
  if (from == nullptr) return nullptr;
  float* const start = to;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    start[i] = from[i];
  to += count;
  return start;
}

// The mapping as all threads of the block see it: its weights copied to the dynamic shared memory,
// if `shared`.
template <bool shared>
__device__ PgdMlp mlp_of_block(const PgdMlp& given) {
  PgdMlp mlp = given;
  if constexpr (shared) {
    float* weights = dynamic_shared<float>();
    mlp.w1 = copy_weights(given.w1, given.hidden * given.d_source, weights);
    mlp.b1 = copy_weights(given.b1, given.hidden, weights);
    mlp.w2 = copy_weights(given.w2, given.d_target * given.hidden, weights);
    mlp.b2 = copy_weights(given.b2, given.d_target, weights);
    __syncthreads();
  }
  return mlp;
}

inline std::size_t bytes_of_weights(const PgdMlp& mlp) {
  const auto hidden = static_cast<std::size_t>(mlp.hidden);
  const auto widths = static_cast<std::size_t>(mlp.d_source + mlp.d_target);
  return sizeof(float) * (hidden * (widths + 1) + static_cast<std::size_t>(mlp.d_target));
}

}  // namespace scdr::cuda
