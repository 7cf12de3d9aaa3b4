#include "slices.h"

#include <limits>

namespace scdr {
namespace {

constexpr auto kSlice = std::chrono::milliseconds(100);
// The clock is looked at after so many rows at least.
constexpr std::int64_t kRowsBetweenLooks = 4096;

thread_local const SliceHook* current = nullptr;

}  // namespace

SliceHookScope::SliceHookScope(const SliceHook* hook) : outer_(current) { current = hook; }
SliceHookScope::~SliceHookScope() { current = outer_; }

Slices::Slices(std::int64_t total)
    : hook_(current),
      total_(total),
      next_look_(hook_ != nullptr ? 0 : std::numeric_limits<std::int64_t>::max()),
      called_(Clock::now()) {}

void Slices::look(std::int64_t done) {
  next_look_ = done + kRowsBetweenLooks;
  const Clock::time_point now = Clock::now();
  if (now - called_ < kSlice) return;
  called_ = now;
  (*hook_)(done, total_);
}

}  // namespace scdr
