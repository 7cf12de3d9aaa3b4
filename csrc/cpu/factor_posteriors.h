// Between the two halves of factor_posteriors_ on the CPU: the driver (checks, threads) and the
// loop over rows, which is compiled once for each SIMD level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "math/factor_posteriors.h"

namespace scdr {

struct FactorPosteriors {
  float* moments;              // [N, moments] of the rows, written
  const std::int64_t* start;   // [N + 1] where a row's ratings begin
  const std::int32_t* others;  // [n]
  const float* ratings;        // [n]
  std::int64_t n_ratings;
  const float* other_moments;  // [M, moments]
  const float* precision;      // [G, y, y]
  const std::int64_t* group;   // [N]
  const float* prior_mean;     // [N, y] or null
  float inverse_noise;
  int d;
};

// Does the rows [begin, end); returns the expected squared errors of their ratings. scratch: so
// many floats as posterior_scratch says.
using PosteriorKernel = double(const FactorPosteriors&, std::int64_t begin, std::int64_t end,
                               float* scratch);

constexpr int kWidestRowPack = 16;
SCDR_INLINE std::size_t posterior_scratch(int d) {
  const PosteriorWidths width = posterior_widths(d);
  const int columns = 2 * width.moments + 2 * width.a + width.matrix + 3 * width.y + 1;
  return static_cast<std::size_t>(columns) * kWidestRowPack;
}

namespace scalar {
PosteriorKernel posterior_kernel;
}
#if defined(__x86_64__)
namespace avx2 {
PosteriorKernel posterior_kernel;
}
namespace avx512 {
PosteriorKernel posterior_kernel;
}
#endif

}  // namespace scdr
