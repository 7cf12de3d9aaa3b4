// How kernels are launched: by function calls, so that the sources are C++ and other compilers than
// nvcc can read them (tests/cuda_on_cpu does).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace scdr::cuda {

// Kernels loop over what is left, so that no count needs more blocks.
constexpr std::int64_t kMaxBlocks = 1 << 16;
// What every device gives a block of dynamic shared memory without being asked.
constexpr std::size_t kSharedBytes = 48 << 10;

inline void check_cuda(const char* op, cudaError_t status) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(op) + ": CUDA: " + cudaGetErrorString(status));
}

inline unsigned blocks_for(std::int64_t work, std::int64_t per_block) {
  return static_cast<unsigned>(
      std::min(std::max<std::int64_t>((work + per_block - 1) / per_block, 1), kMaxBlocks));
}

struct Grid {
  dim3 blocks;
  unsigned threads;  // of a block
  cudaStream_t stream;
  std::size_t shared_bytes = 0;
  bool cooperative = false;  // all blocks run at once, and may wait for each other
};

template <class... Parameters, class... Arguments>
void launch(const char* op, const Grid& grid, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = dim3(grid.threads);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = grid.stream;
  config.attrs = &attribute;
  config.numAttrs = grid.cooperative ? 1 : 0;
  check_cuda(op, cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

// One value from the device; waits for the stream.
template <class T>
T read(const char* op, const T* from, cudaStream_t stream) {
  T value;
  check_cuda(op, cudaMemcpyAsync(&value, from, sizeof(T), cudaMemcpyDeviceToHost, stream));
  check_cuda(op, cudaStreamSynchronize(stream));
  return value;
}

inline __device__ std::int64_t thread_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
inline __device__ std::int64_t threads_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

// The shared memory that a launch asks for by Grid::shared_bytes.
alignas(16) extern __shared__ unsigned char dynamic_shared_bytes[];
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}

}  // namespace scdr::cuda
