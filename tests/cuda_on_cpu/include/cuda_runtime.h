// What the sources in csrc/cuda/ know of CUDA, for a compiler of C++: here it runs on the CPU
// (device.h). A variable in shared memory has to be static, also in a function, and away from
// others.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "device.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ thread_local

using dim3 = cuda_on_cpu::Dim;
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// Threads.

inline void __syncthreads(cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::block_barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::ballot(mask, false, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, where) == mask;
}

namespace cuda_on_cpu {
inline unsigned lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize;
}
// A lane of the caller's group of `width` lanes where `source` is in it, else the caller itself.
template <class T>
T shuffle_in_group(unsigned mask, T value, int source, int width, Where where) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  const unsigned group = lane() & ~static_cast<unsigned>(width - 1);
  const bool inside = source >= static_cast<int>(group) && source < static_cast<int>(group) + width;
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, bits, inside ? static_cast<unsigned>(source) : lane(), where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace cuda_on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const int group = static_cast<int>(cuda_on_cpu::lane()) & ~(width - 1);
  return cuda_on_cpu::shuffle_in_group(mask, value, group + (source & (width - 1)), width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize,
                  cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const int source = static_cast<int>(cuda_on_cpu::lane()) ^ lanes;
  return cuda_on_cpu::shuffle_in_group(mask, value, source, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                 cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const int source = static_cast<int>(cuda_on_cpu::lane()) - static_cast<int>(distance);
  return cuda_on_cpu::shuffle_in_group(mask, value, source, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                   cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const int source = static_cast<int>(cuda_on_cpu::lane()) + static_cast<int>(distance);
  return cuda_on_cpu::shuffle_in_group(mask, value, source, width, where);
}

// Memory.

namespace cuda_on_cpu {
template <class T, class Change>
T atomically(T* address, Change change) {
  const Atomic whole(address, sizeof(T));
  const T before = *address;
  *address = change(before);
  return before;
}
}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T x) { return x + value; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T x) { return std::min(x, value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T x) { return std::max(x, value); });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T x) { return x | value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomically(address, [=](T x) { return x == expected ? value : x; });
}
template <class T>
T __ldg(const T* address) {
  return *address;
}
inline void __threadfence() { cuda_on_cpu::switch_point(); }
inline void __threadfence_block() { cuda_on_cpu::switch_point(); }

// Numbers.

using std::isfinite;
using std::max;
using std::min;
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

// The host's side. There is one stream, and nothing runs beside the host.

using cudaStream_t = struct Stream*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorCooperativeLaunchTooLarge = 720,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
enum cudaLaunchAttributeID { cudaLaunchAttributeCooperative };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess             ? "no error"
         : error == cudaErrorInvalidValue ? "invalid argument"
                                          : "too many blocks in cooperative launch";
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? cuda_on_cpu::kMultiprocessors
               : static_cast<int>(cuda_on_cpu::kMostSharedBytes);
  return cudaSuccess;
}

namespace cuda_on_cpu {
// What a kernel may ask for without being allowed more, and what some were allowed.
constexpr std::size_t kUsualSharedBytes = 48 << 10;
inline std::map<const void*, std::size_t> allowed_shared_bytes;
}  // namespace cuda_on_cpu

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (static_cast<std::size_t>(bytes) > cuda_on_cpu::kMostSharedBytes) return cudaErrorInvalidValue;
  cuda_on_cpu::allowed_shared_bytes[reinterpret_cast<const void*>(kernel)] =
      static_cast<std::size_t>(bytes);
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, std::size_t) {
  *blocks = cuda_on_cpu::kBlocksEach;
  return cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const auto allowed = cuda_on_cpu::allowed_shared_bytes.find(reinterpret_cast<void*>(kernel));
  const std::size_t most = allowed == cuda_on_cpu::allowed_shared_bytes.end()
                               ? cuda_on_cpu::kUsualSharedBytes
                               : allowed->second;
  if (config->dynamicSmemBytes > most) return cudaErrorInvalidValue;
  const bool cooperative = config->numAttrs > 0 && config->attrs[0].val.cooperative != 0;
  constexpr int resident = cuda_on_cpu::kMultiprocessors * cuda_on_cpu::kBlocksEach;
  if (cooperative && config->gridDim.count() > resident) return cudaErrorCooperativeLaunchTooLarge;
  const std::tuple<std::remove_const_t<Parameters>...> values(
      std::forward<Arguments>(arguments)...);
  cuda_on_cpu::run({config->gridDim, config->blockDim, config->dynamicSmemBytes, cooperative},
                   [&] { std::apply(kernel, values); });
  return cudaSuccess;
}
