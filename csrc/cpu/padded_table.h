// A table with each row in cache lines of its own, for as long as an epoch takes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/finite.h"
#include "cpu/mf_sgd_epoch.h"
#include "cpu/scratch.h"

namespace scdr {

// A row of 10 floats lies in two cache lines more often than not, its bias and its count in two
// more, and a table of small pages misses the TLB: an epoch that visits every row several times is
// faster on a copy whose rows hold all of that, aligned, in huge pages. The copy is written back
// when this object goes, if not before.
class PaddedTable {
 public:
  PaddedTable(const MfTable& table, std::int64_t rows, int d)
      : table_(table), rows_(rows), d_(d), stride_(width(d)), copy_(count(rows, stride_)) {}
  PaddedTable(const PaddedTable&) = delete;
  PaddedTable& operator=(const PaddedTable&) = delete;
  ~PaddedTable() {
    if (filled_) write_back();
  }

  MfTable view() {
    float* first = copy_.data();
    return {first, stride_, table_.bias != nullptr ? first + d_ : nullptr,
            table_.inverse_count != nullptr ? first + d_ + 1 : nullptr, stride_};
  }

  void fill() {
    float* row = copy_.data();
    for (std::int64_t i = 0; i < rows_; ++i, row += stride_) {
      const float* factors = table_.factors + i * table_.stride;
      float* end = std::copy(factors, factors + d_, row);
      *end++ = table_.bias != nullptr ? table_.bias[i * table_.column_stride] : 0.0f;
      *end++ =
          table_.inverse_count != nullptr ? table_.inverse_count[i * table_.column_stride] : 0.0f;
      std::fill(end, row + stride_, 0.0f);
    }
    filled_ = true;
  }

  // Returns whether all of it is finite.
  bool write_back() {
    filled_ = false;
    std::uint32_t wrong = 0;
    const float* row = copy_.data();
    for (std::int64_t i = 0; i < rows_; ++i, row += stride_) {
      std::copy(row, row + d_, table_.factors + i * table_.stride);
      if (table_.bias != nullptr) table_.bias[i * table_.column_stride] = row[d_];
      for (std::int64_t line = 0; line < stride_; line += 16)
        for (std::int64_t j = line; j < line + 16; ++j) wrong |= not_finite(row[j]);
    }
    return wrong >> 31 == 0;
  }

 private:
  static std::int64_t width(int d) { return (d + 2 + 15) / 16 * 16; }
  static std::size_t count(std::int64_t rows, std::int64_t stride) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride);
  }

  MfTable table_;
  std::int64_t rows_;
  int d_;
  std::int64_t stride_;
  Scratch<float> copy_;
  bool filled_ = false;
};

}  // namespace scdr
