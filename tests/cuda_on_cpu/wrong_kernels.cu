// Small kernels, each right and with a fault that the shim must show. The program
//   NAME right|wrong SEEDS
// runs one of them with the seeds 0, 1, ..., a line of output for each; test_shim.py says which.
#include <cooperative_groups.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <string>

#include "cuda/launch.h"

namespace {

using scdr::cuda::dynamic_shared;
using scdr::cuda::Grid;
using scdr::cuda::launch;
using scdr::cuda::thread_of_grid;

constexpr unsigned kThreads = 64, kBlocks = 4, kCount = kThreads * kBlocks;

// Each block sums its part, in a tree.
template <bool right>
__global__ void missing_barrier(int* out) {
  __shared__ int sums[kThreads];
  sums[threadIdx.x] = static_cast<int>(thread_of_grid());
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (right) __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = sums[0];
}

// Counts threads by their number modulo 4.
template <bool right>
__global__ void missing_atomic(int* out) {
  int* counter = out + threadIdx.x % 4;
  if (right)
    atomicAdd(counter, 1);
  else
    *counter += 1;
}

// The largest number of a thread; wrong: that of the thread that comes last.
template <bool right>
__global__ void race_of_blocks(int* out) {
  if (right)
    atomicMax(out, static_cast<int>(thread_of_grid()));
  else
    *out = static_cast<int>(thread_of_grid());
}

template <bool right>
__global__ void out_of_bounds(int* out) {
  out[thread_of_grid() + (right ? 0 : 1)] = 1;
}

template <bool right>
__global__ void shared_out_of_bounds(int* out) {
  int* shared = dynamic_shared<int>();
  const unsigned at = right ? threadIdx.x : threadIdx.x + 1;
  shared[at] = static_cast<int>(threadIdx.x);
  out[thread_of_grid()] = shared[at];
}

template <bool right>
__global__ void fixed_shared_out_of_bounds(int* out) {
  __shared__ int shared[kThreads];
  const unsigned at = right ? threadIdx.x : threadIdx.x + 1;
  shared[at] = static_cast<int>(threadIdx.x);
  out[thread_of_grid()] = shared[at];
}

template <bool right>
__global__ void shared_not_written(int* out) {
  float* shared = dynamic_shared<float>();
  if (right) shared[threadIdx.x] = 1.0f;
  __syncthreads();
  out[thread_of_grid()] = shared[kThreads - 1 - threadIdx.x] == 1.0f ? 1 : 0;
}

template <bool right>
__global__ void exit_before_barrier(int* out) {
  if (!right && threadIdx.x >= 40) return;
  __syncthreads();
  out[thread_of_grid()] = 1;
}

template <bool right>
__global__ void two_barriers(int* out) {
  if (right || threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[thread_of_grid()] = 1;
}

// A warp turns its numbers round.
template <bool right>
__global__ void missing_warp_barrier(int* out) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (right) __syncwarp();
  out[thread_of_grid()] = shared[threadIdx.x ^ 31u];
}

// Sums over groups of 16 lanes.
template <bool right>
__global__ void lane_outside_mask(int* out) {
  const unsigned mask = 0xffffu << (threadIdx.x & 16u);
  int sum = static_cast<int>(threadIdx.x);
  for (int distance = right ? 8 : 16; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(mask, sum, distance);
  out[thread_of_grid()] = sum;
}

template <bool right>
__global__ void lane_that_never_comes(int* out) {
  if (!right && threadIdx.x % 32 == 7) return;
  out[thread_of_grid()] = __popc(__ballot_sync(0xffffffffu, threadIdx.x % 2 == 0));
}

// Each thread reads what one of another block has written.
template <bool right>
__global__ void missing_grid_barrier(int* out) {
  __shared__ int kept[kThreads];
  kept[threadIdx.x] = static_cast<int>(blockIdx.x);
  out[thread_of_grid()] = static_cast<int>(thread_of_grid());
  if (right) cooperative_groups::this_grid().sync();
  const int other = out[kCount - 1 - thread_of_grid()];
  if (right) cooperative_groups::this_grid().sync();
  out[thread_of_grid()] = other + kept[threadIdx.x];
}

template <bool right>
__global__ void exit_before_grid_barrier(int* out) {
  if (!right && blockIdx.x == 2) return;
  cooperative_groups::this_grid().sync();
  out[thread_of_grid()] = 1;
}

template <bool right>
__global__ void launch_too_large(int* out) {
  out[threadIdx.x] = static_cast<int>(right);
}

using Kernel = void (*)(int*);
struct Case {
  Kernel right, wrong;
  Grid grid = {.blocks = kBlocks, .threads = kThreads, .stream = nullptr};
  Grid wrong_grid = grid;
};
#define CASE(name, ...)                               \
  {                                                   \
    #name, { name<true>, name<false>, ##__VA_ARGS__ } \
  }
constexpr Grid kShared{kBlocks, kThreads, nullptr, kThreads * sizeof(int)};
constexpr Grid kCooperative{kBlocks, kThreads, nullptr, 0, true};
const std::map<std::string, Case> kCases{
    CASE(missing_barrier),
    CASE(missing_atomic),
    CASE(race_of_blocks),
    CASE(out_of_bounds),
    CASE(shared_out_of_bounds, kShared),
    CASE(fixed_shared_out_of_bounds),
    CASE(shared_not_written, kShared),
    CASE(exit_before_barrier),
    CASE(two_barriers),
    CASE(missing_warp_barrier),
    CASE(lane_outside_mask),
    CASE(lane_that_never_comes),
    CASE(missing_grid_barrier, kCooperative),
    CASE(exit_before_grid_barrier, kCooperative),
    CASE(launch_too_large, {1, kThreads, nullptr}, {1, 2048, nullptr}),
};

}  // namespace

int main(int, char** arguments) {
  const std::string name = arguments[1];
  const Case& one = kCases.at(name);
  const bool right = arguments[2] == std::string("right");
  try {
    for (int seed = 0; seed < std::atoi(arguments[3]); ++seed) {
      cuda_on_cpu::seed(static_cast<std::uint64_t>(seed));
      const auto out = std::make_unique<int[]>(kCount);
      launch(name.c_str(), right ? one.grid : one.wrong_grid, right ? one.right : one.wrong,
             out.get());
      for (unsigned i = 0; i < kCount; ++i) std::printf("%d ", out[i]);
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
