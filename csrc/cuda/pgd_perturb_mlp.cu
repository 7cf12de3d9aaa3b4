// The kernels of pgd_perturb_mlp, some threads a row, and tanh. No torch here.
#include "cuda/pgd_perturb_mlp.h"

#include <cstddef>

#include "cuda/finite.h"
#include "cuda/launch.h"
#include "cuda/mlp.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 4;  // that share a row
constexpr const char* kOp = "pgd_perturb_mlp";

template <int D, bool shared>
__global__ void __launch_bounds__(kThreads, 4)
    perturb_kernel(const __grid_constant__ PgdMlp given, PgdRows rows, std::int64_t count) {
  const PgdMlp mlp = mlp_of_block<shared>(given);
  for_each_row<kLanes>(thread_of_grid(), threads_of_grid(), count, [&](std::int64_t row, int mine) {
    scdr::pgd_perturb_mlp<SharedRowPack<kLanes>, D, 1>(mlp, rows, row, mine);
  });
}

template <int D>
void perturb(const PgdMlp& mlp, const PgdRows& rows, std::int64_t count, cudaStream_t stream) {
  const std::size_t bytes = bytes_of_weights(mlp);
  const unsigned blocks = blocks_for(count, kThreads / kLanes);
  if (bytes <= kSharedBytes)
    launch(kOp, {blocks, kThreads, stream, bytes}, perturb_kernel<D, true>, mlp, rows, count);
  else
    launch(kOp, {blocks, kThreads, stream}, perturb_kernel<D, false>, mlp, rows, count);
}

__global__ void tanh_kernel(const float* x, float* out, std::int64_t count) {
  for (std::int64_t at = thread_of_grid(); at < count; at += threads_of_grid())
    out[at] = scdr::tanh(RowPack{x[at]}).x;
}

}  // namespace

unsigned pgd_perturb_mlp(const PgdMlp& mlp, const PgdRows& rows, std::int64_t count,
                         unsigned* status, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  find_wrong(kOp, {rows.user, rows.item, rows.rating, mlp.d_source, mlp.d_target}, count, status,
             stream);
  switch (mlp.d_source) {
    case 10:
      perturb<10>(mlp, rows, count, stream);
      break;
    case 11:
      perturb<11>(mlp, rows, count, stream);
      break;
    default:
      perturb<0>(mlp, rows, count, stream);
  }
  return read(kOp, status, stream);
}

void tanh(const float* x, float* out, std::int64_t count, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda("tanh", cudaSetDevice(device));
  launch("tanh", {blocks_for(count, kThreads), kThreads, stream}, tanh_kernel, x, out, count);
}

}  // namespace scdr::cuda
