// A GPU played by the CPU: every CUDA thread is a fibre, and which of them runs on from a switch
// point is drawn at random. What CUDA leaves undefined, and a race, ends the launch with an error.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <span>
#include <string>

namespace cuda_on_cpu {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  unsigned count() const { return x * y * z; }
};

using Where = std::source_location;

struct Launch {
  Dim grid, block;
  std::size_t shared_bytes = 0;
  bool cooperative = false;  // all blocks are there at once and may wait for each other
};

// Multiprocessors, and blocks that each holds: what a cooperative launch may take.
constexpr int kMultiprocessors = 4, kBlocksEach = 2;
constexpr std::size_t kMostSharedBytes = 227 << 10;  // an H100's

// Draws the order of blocks and threads from here on.
void seed(std::uint64_t value);

// Runs the kernel in every thread of the grid; throws std::runtime_error.
void run(const Launch& launch, const std::function<void()>& kernel);

// The rest is called by threads of the grid.
[[noreturn]] void fail(const std::string& what);
void switch_point();
void block_barrier(Where where);
void grid_barrier(Where where);

// Waits for the lanes in mask at the same place of the code, and returns the value of lane
// `source`.
std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, Where where);
// Waits for the lanes in mask at the same place, and returns a bit for each whose predicate holds.
unsigned ballot(unsigned mask, bool predicate, Where where);

// While there is one of these, no other thread runs and the race detector sees one atomic
// operation.
struct Atomic {
  Atomic(const void* address, std::size_t bytes);
  ~Atomic();
};

// Who runs, as the race detector sees it: what another thread did is over and visible if it was in
// an earlier grid phase, in this block and an earlier phase of it, or in this warp before a meeting
// of its lanes.
struct Now {
  std::uint32_t block, thread;  // numbers in the grid and in the block
  std::uint32_t grid_phase, block_phase, warp_clock;
};
struct Running {
  bool in_grid = false;   // false while the host runs, and for the length of an atomic operation
  pthread_t host_thread;  // which plays the grid; others may be on the host's side meanwhile
  std::span<const unsigned char> stack;
  Now now;
};
extern Running running;

// All variables in shared memory; within them, what the launch has not asked for.
extern std::span<unsigned char> shared_block, unasked_shared;

inline bool within(std::uintptr_t address, std::span<const unsigned char> range) {
  return address - reinterpret_cast<std::uintptr_t>(range.data()) < range.size();
}

}  // namespace cuda_on_cpu
