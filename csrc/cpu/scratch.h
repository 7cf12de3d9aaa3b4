// Memory that a kernel needs while it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace scdr {

// Uninitialised, in huge pages where the system gives them: large scratch is read at random, and
// with small pages every read would miss the TLB too.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::size_t count) : size_(count) {
    constexpr std::size_t huge = std::size_t{1} << 21, line = 64;
    const std::size_t bytes = count * sizeof(T);
    const std::size_t alignment = bytes >= huge ? huge : line;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, rounded > 0 ? rounded : line));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  T* data() { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::int64_t i) { return data_[i]; }

 private:
  std::size_t size_;
  T* data_;
};

}  // namespace scdr
