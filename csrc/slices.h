// Lets long work be watched and stopped. Between slices of it the op calls the hook that its caller
// has set on this thread; the hook stops the work by throwing.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace scdr {

// Told how many of all rows are done.
using SliceHook = std::function<void(std::int64_t done, std::int64_t total)>;

// Sets the hook of the calling thread while it lives; null: none.
class SliceHookScope {
 public:
  explicit SliceHookScope(const SliceHook* hook);
  SliceHookScope(const SliceHookScope&) = delete;
  SliceHookScope& operator=(const SliceHookScope&) = delete;
  ~SliceHookScope();

 private:
  const SliceHook* outer_;
};

// The slices of one op's work, a tenth of a second each. Libraries beside this one that hold ops,
// as the tests' do, find it here.
class __attribute__((visibility("default"))) Slices {
 public:
  explicit Slices(std::int64_t total);
  // To be told at places where the work may stop: after each batch. Whatever the hook throws comes
  // out here.
  void passed(std::int64_t done) {
    if (done >= next_look_) look(done);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void look(std::int64_t done);

  const SliceHook* hook_;
  std::int64_t total_, next_look_;
  Clock::time_point called_;
};

}  // namespace scdr
