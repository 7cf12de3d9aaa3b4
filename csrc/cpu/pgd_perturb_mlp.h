// Between the two halves of pgd_perturb_mlp on the CPU: the driver (checks, threads) and the row
// kernels, which are compiled once for each SIMD level; and the same for tanh.
#pragma once

#include <cstdint>

#include "math/pgd_perturb_mlp.h"

namespace scdr {

// Perturbs the rows [begin, end).
using PgdMlpKernel = void(const PgdMlp&, const PgdRows&, std::int64_t begin, std::int64_t end);
// out[i] = tanh(x[i]) for count of them.
using TanhKernel = void(const float* x, float* out, std::int64_t count);

namespace scalar {
PgdMlpKernel pgd_mlp_kernel;
TanhKernel tanh_kernel;
}  // namespace scalar
#if defined(__x86_64__)
namespace avx2 {
PgdMlpKernel pgd_mlp_kernel;
TanhKernel tanh_kernel;
}  // namespace avx2
namespace avx512 {
PgdMlpKernel pgd_mlp_kernel;
TanhKernel tanh_kernel;
}  // namespace avx512
#endif

}  // namespace scdr
