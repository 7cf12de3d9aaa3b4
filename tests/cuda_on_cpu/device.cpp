#include "device.h"

#include <link.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#endif

namespace scdr::cuda {
// csrc/cuda/launch.h declares it: the shared memory that a launch asks for.
alignas(16) extern __shared__ unsigned char dynamic_shared_bytes[];
alignas(16) __shared__ unsigned char dynamic_shared_bytes[cuda_on_cpu::kMostSharedBytes];
}  // namespace scdr::cuda

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {

Running running;
std::span<unsigned char> shared_block, unasked_shared;

namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr std::size_t kGuardBytes = 4 << 10;
constexpr unsigned kWarp = 32, kMostThreads = 1024, kMostGridYZ = 65535;
constexpr std::size_t kLongestRun = 40;  // memory accesses between two switch points

enum class State { runnable, block_barrier, grid_barrier, shuffle, ballot, exited };

struct Block;

struct Fibre {
  ucontext_t context;  // to start from
  jmp_buf jump;        // to go on from: unlike swapcontext, setjmp makes no system call
  bool started = false;
  std::span<const unsigned char> stack;
  Block* block = nullptr;
  unsigned thread = 0;
  uint3 index;
  State state = State::runnable;
  Where where;
  unsigned mask = 0, source = 0;
  std::uint64_t value = 0;  // what the thread brings to a meeting of lanes, and takes from it
  std::uint32_t warp_clock = 0;
};

struct Block {
  std::uint32_t number = 0;
  uint3 index;
  std::vector<Fibre*> fibres, runnable;
  unsigned waiting = 0;
  std::uint32_t phase = 0;
  std::vector<unsigned char> shared;  // its shared memory while another block runs
};

std::mutex one_launch;
std::mt19937_64 random_source;
std::vector<std::unique_ptr<Fibre>> pool;
Fibre host;
Fibre* current = &host;
Launch launch;
const std::function<void()>* kernel;
std::uint32_t grid_phase = 0;
std::string failure;

std::size_t below(std::size_t n) { return random_source() % n; }

unsigned threads() { return launch.block.count(); }

// Tells AddressSanitizer that the stack is another one, and learns from it where the host's is.
void arrive([[maybe_unused]] Fibre* self) {
#if defined(__SANITIZE_ADDRESS__)
  const void* from;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &from, &bytes);
  if (self != &host && host.stack.empty())
    host.stack = {static_cast<const unsigned char*>(from), bytes};
#endif
}

void become(const Fibre* self) {
  running.in_grid = self != &host;
  if (!running.in_grid) return;
  const Block& block = *self->block;
  threadIdx = self->index;
  blockIdx = block.index;
  running.stack = self->stack;
  running.now = {block.number, self->thread, grid_phase, block.phase, self->warp_clock};
}

void switch_to(Fibre* next) {
  Fibre* self = current;
  if (next != self) {
    current = next;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, next->stack.data(), next->stack.size());
#endif
    if (_setjmp(self->jump) == 0) {
      if (next->started) _longjmp(next->jump, 1);
      next->started = true;
      setcontext(&next->context);
    }
    arrive(self);
  }
  become(self);
}

// Lets another thread of the block run, or the host where none can.
void give_way() {
  std::vector<Fibre*>& runnable = current->block->runnable;
  if (runnable.empty() || !failure.empty()) return switch_to(&host);
  std::swap(runnable[below(runnable.size())], runnable.back());
  Fibre* next = runnable.back();
  runnable.pop_back();
  switch_to(next);
}

void wake(Fibre* fibre) {
  fibre->state = State::runnable;
  fibre->block->runnable.push_back(fibre);
}

void be_threads() {
  arrive(current);
  become(current);
  while (true) {
    (*kernel)();
    current->state = State::exited;
    give_way();
  }
}

Fibre* fibre_number(std::size_t number) {
  while (pool.size() <= number) {
    auto fibre = std::make_unique<Fibre>();
    void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0)
      throw std::runtime_error("cuda_on_cpu: no memory for a stack");
    fibre->stack = {static_cast<unsigned char*>(memory) + kGuardBytes, kStackBytes};
    pool.push_back(std::move(fibre));
  }
  return pool[number].get();
}

// A fibre that was given up in the midst of a kernel starts afresh, like one that never ran.
void prepare(Fibre* fibre) {
  if (fibre->block != nullptr && fibre->state == State::exited) return;
  ASAN_UNPOISON_MEMORY_REGION(fibre->stack.data(), fibre->stack.size());
  fibre->started = false;
  getcontext(&fibre->context);
  fibre->context.uc_stack.ss_sp = const_cast<unsigned char*>(fibre->stack.data());
  fibre->context.uc_stack.ss_size = fibre->stack.size();
  fibre->context.uc_link = nullptr;
  makecontext(&fibre->context, be_threads, 0);
}

uint3 index_in(const Dim& dim, unsigned number) {
  return {number % dim.x, number / dim.x % dim.y, number / (dim.x * dim.y)};
}

Block make_block(std::uint32_t number, std::size_t first_fibre) {
  Block block;
  block.number = number;
  block.index = index_in(launch.grid, number);
  for (unsigned thread = 0; thread < threads(); ++thread) {
    Fibre* fibre = fibre_number(first_fibre + thread);
    prepare(fibre);
    fibre->thread = thread;
    fibre->index = index_in(launch.block, thread);
    fibre->state = State::runnable;
    fibre->warp_clock = 0;
    block.fibres.push_back(fibre);
  }
  block.runnable = block.fibres;
  return block;
}

std::string place(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string describe(const Fibre& fibre) {
  switch (fibre.state) {
    case State::exited:
      return "exited";
    case State::block_barrier:
      return "at __syncthreads, " + place(fibre.where);
    case State::grid_barrier:
      return "at the barrier of the grid, " + place(fibre.where);
    default: {
      std::ostringstream text;
      text << "waiting for the lanes 0x" << std::hex << fibre.mask << ", " << place(fibre.where);
      return text.str();
    }
  }
}

std::string stuck(const Block& block) {
  std::map<std::string, std::vector<unsigned>> groups;
  for (const Fibre* fibre : block.fibres) groups[describe(*fibre)].push_back(fibre->thread);
  std::ostringstream text;
  text << "threads of block " << block.number << " wait for each other in vain:";
  for (const auto& [what, members] : groups)
    text << ' ' << members.size() << " (first: thread " << members.front() << ") " << what << ';';
  return text.str();
}

// Variables in shared memory are the only ones of this library that are local to threads of the
// host (cuda_runtime.h), and lie together.
std::span<unsigned char> find_shared_block() {
  std::span<unsigned char> found;
  const auto look = [](dl_phdr_info* library, std::size_t, void* result) {
    auto* begin = static_cast<unsigned char*>(library->dlpi_tls_data);
    for (int i = 0; begin != nullptr && i < library->dlpi_phnum; ++i)
      if (const auto& part = library->dlpi_phdr[i];
          part.p_type == PT_TLS &&
          static_cast<std::size_t>(scdr::cuda::dynamic_shared_bytes - begin) < part.p_memsz)
        *static_cast<std::span<unsigned char>*>(result) = {begin, part.p_memsz};
    return 0;
  };
  dl_iterate_phdr(look, &found);
  return found;
}

std::array<std::span<unsigned char>, 2> asked_shared() {
  return {std::span(shared_block.data(), unasked_shared.data()),
          std::span(std::to_address(unasked_shared.end()), std::to_address(shared_block.end()))};
}

void save_shared(std::vector<unsigned char>& saved) {
  saved.clear();
  for (const auto part : asked_shared()) saved.insert(saved.end(), part.begin(), part.end());
}

void restore_shared(const std::vector<unsigned char>& saved) {
  const unsigned char* from = saved.data();
  for (const auto part : asked_shared()) {
    std::memcpy(part.data(), from, part.size());
    from += part.size();
  }
}

// So that what a block reads before it is written is no lucky zero: floats are not numbers.
void spoil_shared() {
  for (const auto part : asked_shared()) std::ranges::fill(part, 0xff);
}

// Until every thread has exited or waits for the other blocks; true where all have exited.
bool run_block(Block& block) {
  for (Fibre* fibre : block.fibres) fibre->block = &block;
  if (block.shared.empty())
    spoil_shared();
  else
    restore_shared(block.shared);
  Fibre* first = block.runnable[below(block.runnable.size())];
  std::erase(block.runnable, first);
  switch_to(first);
  const auto count = [&](State state) {
    return std::ranges::count(block.fibres, state, &Fibre::state);
  };
  const bool over = count(State::exited) == threads();
  if (failure.empty() && !over && count(State::grid_barrier) != threads()) failure = stuck(block);
  if (!failure.empty()) throw std::runtime_error("cuda_on_cpu: " + failure);
  if (!over) save_shared(block.shared);
  return over;
}

void run_apart() {
  std::vector<std::uint32_t> order(launch.grid.count());
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::shuffle(order, random_source);
  for (const std::uint32_t number : order) {
    Block block = make_block(number, 0);
    run_block(block);
  }
}

void run_together() {
  std::vector<Block> blocks;
  for (std::uint32_t number = 0; number < launch.grid.count(); ++number)
    blocks.push_back(make_block(number, std::size_t{number} * threads()));
  std::size_t over = 0;
  while (over == 0) {
    std::ranges::shuffle(blocks, random_source);
    for (Block& block : blocks) over += run_block(block);
    ++grid_phase;
    if (over == 0)
      for (Block& block : blocks)
        for (Fibre* fibre : block.fibres) {
          fibre->block = &block;
          wake(fibre);
        }
  }
  if (over != blocks.size())
    throw std::runtime_error("cuda_on_cpu: blocks wait at the barrier of the grid for " +
                             std::to_string(over) + " that have exited");
}

using Lanes = std::span<Fibre* const>;

// Waits until every lane in the mask has come here; the last one lets all go on.
template <class Resolve>
std::uint64_t meet(State state, unsigned mask, std::uint64_t value, Where where, Resolve resolve) {
  Fibre* self = current;
  const unsigned first = self->thread / kWarp * kWarp;
  if ((mask >> (self->thread - first) & 1u) == 0)
    fail("a lane that is not in its own mask, " + place(where));
  self->state = state;
  self->where = where;
  self->mask = mask;
  self->value = value;
  const auto same = [&](const Fibre* lane) {
    return lane->state == state && lane->mask == mask && lane->where.line() == where.line() &&
           lane->where.column() == where.column() && lane->where.file_name() == where.file_name();
  };
  std::array<Fibre*, kWarp> found;
  std::size_t count = 0;
  for (unsigned lane = 0; lane < kWarp && first + lane < threads(); ++lane)
    if ((mask >> lane & 1u) != 0) {
      found[count++] = self->block->fibres[first + lane];
      if (!same(found[count - 1])) {
        give_way();
        return self->value;
      }
    }
  const Lanes lanes(found.data(), count);
  resolve(lanes);
  std::uint32_t clock = 0;
  for (const Fibre* lane : lanes) clock = std::max(clock, lane->warp_clock);
  for (Fibre* lane : lanes) {
    lane->warp_clock = clock + 1;
    wake(lane);
  }
  give_way();
  return self->value;
}

}  // namespace

void seed(std::uint64_t value) { random_source.seed(value); }

extern "C" [[gnu::visibility("default")]] void cuda_on_cpu_seed(std::uint64_t value) {
  seed(value);
}

void run(const Launch& wanted, const std::function<void()>& body) {
  const std::scoped_lock lock(one_launch);
  launch = wanted;
  kernel = &body;
  if (threads() == 0 || threads() > kMostThreads || launch.grid.count() == 0 ||
      launch.grid.y > kMostGridYZ || launch.grid.z > kMostGridYZ)
    throw std::runtime_error("cuda_on_cpu: a launch with a wrong number of blocks or threads");
  blockDim = launch.block;
  gridDim = launch.grid;
  failure.clear();
  running.host_thread = pthread_self();
  host.stack = {};
  host.started = true;
  ++grid_phase;
  unasked_shared = std::span(scdr::cuda::dynamic_shared_bytes).subspan(launch.shared_bytes);
  shared_block = find_shared_block();  // after its first use by this thread of the host
  ASAN_POISON_MEMORY_REGION(unasked_shared.data(), unasked_shared.size());
  const auto cover = [](void*) {
    ASAN_UNPOISON_MEMORY_REGION(shared_block.data(), shared_block.size());
  };
  const std::unique_ptr<void, decltype(cover)> uncover(&launch, cover);
  if (launch.cooperative)
    run_together();
  else
    run_apart();
}

void fail(const std::string& what) {
  failure = what + ": block " + std::to_string(current->block->number) + ", thread " +
            std::to_string(current->thread);
  switch_to(&host);
  std::abort();  // a fibre given up is never gone on with
}

void switch_point() {
  static std::size_t left = 1;
  if (!running.in_grid || --left > 0) return;
  left = 1 + below(kLongestRun);
  wake(current);
  give_way();
}

void block_barrier(Where where) {
  Fibre* self = current;
  Block& block = *self->block;
  for (const Fibre* other : block.fibres)
    if (other->state == State::block_barrier && other->where.line() != where.line())
      fail("__syncthreads at " + place(where) + " while others are at " + place(other->where));
  self->state = State::block_barrier;
  self->where = where;
  if (++block.waiting == threads()) {
    block.waiting = 0;
    ++block.phase;
    for (Fibre* fibre : block.fibres) wake(fibre);
  }
  give_way();
}

void grid_barrier(Where where) {
  if (!launch.cooperative) fail("a barrier of a grid whose launch was not cooperative");
  current->state = State::grid_barrier;
  current->where = where;
  give_way();
}

std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, Where where) {
  current->source = source % kWarp;
  return meet(State::shuffle, mask, value, where, [&](Lanes lanes) {
    std::array<std::uint64_t, kWarp> taken;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const Fibre* lane = lanes[i];
      const auto from = std::ranges::find(lanes, lane->source,
                                          [](const Fibre* other) { return other->thread % kWarp; });
      if (from == lanes.end())
        fail("lane " + std::to_string(lane->thread % kWarp) + " reads lane " +
             std::to_string(lane->source) + ", which is not in the mask, " + place(where));
      taken[i] = (*from)->value;
    }
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i]->value = taken[i];
  });
}

unsigned ballot(unsigned mask, bool predicate, Where where) {
  const auto meeting = [](Lanes lanes) {
    std::uint64_t bits = 0;
    for (const Fibre* lane : lanes) bits |= lane->value << lane->thread % kWarp;
    for (Fibre* lane : lanes) lane->value = bits;
  };
  return static_cast<unsigned>(meet(State::ballot, mask, predicate ? 1 : 0, where, meeting));
}

}  // namespace cuda_on_cpu
