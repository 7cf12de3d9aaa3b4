// Whether rows hold only finite numbers.
#pragma once

#include "cuda/launch.h"
#include "math/pgd_perturb_mlp.h"

namespace scdr::cuda {
namespace {

constexpr int kCheckThreads = 256;

__device__ void check_column(const float* x, std::int64_t count, unsigned bit, unsigned* status) {
  bool finite = true;
  for (std::int64_t at = thread_of_grid(); at < count; at += threads_of_grid())
    finite = finite && isfinite(x[at]);
  if (!finite) atomicOr(status, bit);
}

__global__ void check_kernel(RowsToCheck rows, std::int64_t count, unsigned* status) {
  check_column(rows.user, count * rows.d_source, kNotFiniteUser, status);
  check_column(rows.item, count * rows.d_target, kNotFiniteItem, status);
  check_column(rows.rating, count, kNotFiniteRating, status);
}

// Leaves in status [1] which columns of the rows are not finite, kNotFinite...; does not wait.
inline void find_wrong(const char* op, const RowsToCheck& rows, std::int64_t count,
                       unsigned* status, cudaStream_t stream) {
  check_cuda(op, cudaMemsetAsync(status, 0, sizeof(unsigned), stream));
  launch(op, {blocks_for(count, kCheckThreads), kCheckThreads, stream}, check_kernel, rows, count,
         status);
}

}  // namespace
}  // namespace scdr::cuda
