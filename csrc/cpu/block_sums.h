// Sums over the rows of a batch that are the same to the bit at any number of threads: over chunks
// within blocks, and over blocks, in order.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace scdr {

class BlockSums {
 public:
  // For batches of so many rows at most; count values are summed.
  BlockSums(std::int64_t most_rows, std::int64_t chunk, std::int64_t count)
      : chunk_(chunk),
        rows_(chunk * std::max<std::int64_t>(divided(divided(most_rows, chunk), kMostBlocks), 1)),
        count_(count),
        sums_(static_cast<std::size_t>(std::max<std::int64_t>(divided(most_rows, rows_), 1) *
                                       count)) {}

  // add(begin, end, sums) adds what the rows [begin, end), one chunk of them, contribute. A thread
  // is woken for `grain` rows or more. Returns the sums over [0, rows).
  template <class Add>
  const float* run(std::int64_t rows, std::int64_t grain, const Add& add) {
    const std::int64_t blocks = divided(rows, rows_);
    const auto work = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t block = first; block < last; ++block) {
        float* sums = sums_.data() + block * count_;
        std::fill_n(sums, count_, 0.0f);
        const std::int64_t end = std::min((block + 1) * rows_, rows);
        for (std::int64_t at = block * rows_; at < end; at += chunk_)
          add(at, std::min(at + chunk_, end), sums);
      }
    };
    torch::stable::parallel_for(0, blocks, std::max<std::int64_t>(grain / rows_, 1), work);
    if (blocks == 0) std::fill_n(sums_.data(), count_, 0.0f);
    for (std::int64_t block = 1; block < blocks; ++block) {
      const float* more = sums_.data() + block * count_;
      for (std::int64_t i = 0; i < count_; ++i) sums_[static_cast<std::size_t>(i)] += more[i];
    }
    return sums_.data();
  }

 private:
  // Each block has sums of its own.
  static constexpr std::int64_t kMostBlocks = 32;

  static std::int64_t divided(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

  std::int64_t chunk_, rows_, count_;
  std::vector<float> sums_;
};

}  // namespace scdr
