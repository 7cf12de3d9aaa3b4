// Between the two halves of the sharp losses on the CPU: the drivers (checks, threads) and the row
// kernels, which are compiled once for each SIMD level. Each does the rows [begin, end).
#pragma once

#include <cstdint>

#include "math/sharp_mapping_loss.h"
#include "math/sharp_mf_loss.h"

namespace scdr {

struct SharpKernels {
  void (*mf)(const SharpMfRows&, const MfSettings&, Inner, std::int64_t begin, std::int64_t end);
  void (*mf_gradient)(const SharpMfGradients&, Inner, std::int64_t begin, std::int64_t end);
  void (*mapping)(const PgdMlp&, const SharpRows&, std::int64_t begin, std::int64_t end);
};

using PickSharpKernels = SharpKernels();
namespace scalar {
PickSharpKernels sharp_kernels;
}
#if defined(__x86_64__)
namespace avx2 {
PickSharpKernels sharp_kernels;
}
namespace avx512 {
PickSharpKernels sharp_kernels;
}
#endif

}  // namespace scdr
