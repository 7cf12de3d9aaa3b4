// Finds data races and shared memory out of bounds. The kernels are compiled with
// -fsanitize=thread, which calls a function at every access to memory; these are ours, and know
// CUDA's barriers. A race is found wherever two threads touch a byte, one of them writing, with no
// barrier in between, in whatever order they ran. Memory is looked at in cells of 4 bytes; where
// two cells share a place of the table, the older one is forgotten.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "device.h"

namespace cuda_on_cpu {
namespace {

constexpr unsigned kWarp = 32, kCellBytes = 4;
constexpr std::size_t kCells = 1 << 17;

enum class Kind : std::uint8_t { read, write, atomic };

struct Access {
  Now who;
  std::uint8_t bytes;  // a bit for each byte of the cell; 0 where there was no access
  Kind kind;
};

struct Cell {
  std::uintptr_t number = 0;
  // The last write, and two threads that have read since; of more readers some are forgotten.
  Access write, reads[2];
};

std::vector<Cell> cells(kCells);

bool same_thread(const Now& a, const Now& b) { return a.block == b.block && a.thread == b.thread; }

// Whether `before` is over and visible to `now`.
bool ordered(const Now& before, const Now& now) {
  if (before.grid_phase != now.grid_phase) return true;
  if (before.block != now.block) return false;
  if (before.thread == now.thread || before.block_phase < now.block_phase) return true;
  return before.thread / kWarp == now.thread / kWarp && before.warp_clock < now.warp_clock;
}

bool conflict(const Access& before, const Access& access, bool shared) {
  if ((before.bytes & access.bytes) == 0) return false;
  if (before.kind == access.kind && before.kind != Kind::write) return false;
  if (shared && before.who.block != access.who.block) return false;
  return !ordered(before.who, access.who);
}

std::string name(const Access& access) {
  constexpr std::array kinds{"a read by", "a write by", "an atomic operation of"};
  return std::string(kinds[static_cast<std::size_t>(access.kind)]) + " block " +
         std::to_string(access.who.block) + ", thread " + std::to_string(access.who.thread);
}

void note(std::uintptr_t number, unsigned bytes, Kind kind, bool shared) {
  const Access access{running.now, static_cast<std::uint8_t>(bytes), kind};
  Cell& cell = cells[number % kCells];
  if (cell.number != number) {
    cell.number = number;
    cell.write.bytes = cell.reads[0].bytes = cell.reads[1].bytes = 0;
  }
  for (const Access* before : {&cell.write, &cell.reads[0], &cell.reads[1]})
    if (conflict(*before, access, shared))
      fail("a data race: " + name(*before) + " and then, with no barrier between, " + name(access));
  if (kind != Kind::read) {
    cell.write = access;
    cell.reads[0].bytes = cell.reads[1].bytes = 0;
  } else {
    const Access& first = cell.reads[0];
    const bool replace =
        first.bytes == 0 || same_thread(first.who, access.who) || ordered(first.who, access.who);
    cell.reads[replace ? 0 : 1] = access;
  }
}

inline void access(const void* pointer, std::size_t size, Kind kind) {
  const auto begin = reinterpret_cast<std::uintptr_t>(pointer), end = begin + size;
  if (!running.in_grid || within(begin, running.stack)) return;
  if (!pthread_equal(running.host_thread, pthread_self())) return;
  switch_point();
  if (within(end - 1, unasked_shared)) fail("shared memory beyond what the launch asked for");
  const bool shared = within(begin, shared_block);
  for (std::uintptr_t at = begin; at < end;) {
    const std::uintptr_t number = at / kCellBytes, stop = std::min(end, (number + 1) * kCellBytes);
    note(number, ((1u << (stop - at)) - 1) << at % kCellBytes, kind, shared);
    at = stop;
  }
}

}  // namespace

Atomic::Atomic(const void* address, std::size_t bytes) {
  access(address, bytes, Kind::atomic);
  running.in_grid = false;
}
Atomic::~Atomic() { running.in_grid = true; }

}  // namespace cuda_on_cpu

#define HOOK(name, bytes)                                                          \
  void __tsan_read##name(void* p) { access(p, bytes, cuda_on_cpu::Kind::read); }   \
  void __tsan_write##name(void* p) { access(p, bytes, cuda_on_cpu::Kind::write); } \
  void __tsan_unaligned_read##name(void* p) { __tsan_read##name(p); }              \
  void __tsan_unaligned_write##name(void* p) { __tsan_write##name(p); }            \
  void __tsan_volatile_read##name(void* p) { __tsan_read##name(p); }               \
  void __tsan_volatile_write##name(void* p) { __tsan_write##name(p); }

using cuda_on_cpu::access;
extern "C" {
HOOK(1, 1)
HOOK(2, 2)
HOOK(4, 4)
HOOK(8, 8)
HOOK(16, 16)
void __tsan_read_range(void* p, std::size_t bytes) { access(p, bytes, cuda_on_cpu::Kind::read); }
void __tsan_write_range(void* p, std::size_t bytes) { access(p, bytes, cuda_on_cpu::Kind::write); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
}
