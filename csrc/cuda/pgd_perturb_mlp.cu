// The kernels of pgd_perturb_mlp and tanh: one thread a row. No torch here.
#include "cuda/pgd_perturb_mlp.h"

#include <cstddef>

#include "cuda/launch.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 128;
constexpr const char* kOp = "pgd_perturb_mlp";

__device__ void check_finite(const float* x, std::int64_t count, unsigned bit, unsigned* status) {
  bool finite = true;
  for (std::int64_t at = thread_of_grid(); at < count; at += threads_of_grid())
    finite = finite && isfinite(x[at]);
  if (!finite) atomicOr(status, bit);
}

__global__ void check_kernel(PgdMlp mlp, PgdRows rows, std::int64_t count, unsigned* status) {
  check_finite(rows.user, count * mlp.d_source, kNotFiniteUser, status);
  check_finite(rows.item, count * mlp.d_target, kNotFiniteItem, status);
  check_finite(rows.rating, count, kNotFiniteRating, status);
}

// Copies count weights to `to` and moves it behind them.
__device__ const float* copy_weights(const float* from, int count, float*& to) {
  if (from == nullptr) return nullptr;
  float* const start = to;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) start[i] = from[i];
  to += count;
  return start;
}

template <int D, bool shared>
__global__ void __launch_bounds__(kThreads, 4)
    perturb_kernel(const __grid_constant__ PgdMlp given, PgdRows rows, std::int64_t count) {
  PgdMlp mlp = given;
  if constexpr (shared) {
    float* to = dynamic_shared<float>();
    mlp.w1 = copy_weights(given.w1, given.hidden * given.d_source, to);
    mlp.b1 = copy_weights(given.b1, given.hidden, to);
    mlp.w2 = copy_weights(given.w2, given.d_target * given.hidden, to);
    mlp.b2 = copy_weights(given.b2, given.d_target, to);
    __syncthreads();
  }
  for (std::int64_t row = thread_of_grid(); row < count; row += threads_of_grid())
    scdr::pgd_perturb_mlp<RowPack, D, 1>(mlp, rows, row, 1);
}

template <int D>
void perturb(const PgdMlp& mlp, const PgdRows& rows, std::int64_t count, cudaStream_t stream) {
  const auto hidden = static_cast<std::size_t>(mlp.hidden);
  const auto d_source = static_cast<std::size_t>(mlp.d_source);
  const auto d_target = static_cast<std::size_t>(mlp.d_target);
  const std::size_t bytes = sizeof(float) * (hidden * (d_source + d_target) + hidden + d_target);
  const unsigned blocks = blocks_for(count, kThreads);
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
  check_cuda(kOp, cudaMemsetAsync(status, 0, sizeof(unsigned), stream));
  launch(kOp, {blocks_for(count, kThreads), kThreads, stream}, check_kernel, mlp, rows, count,
         status);
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
