// Whether an array holds only finite numbers, in less time than reading it takes.
#pragma once

#include <bit>
#include <cstdint>

namespace scdr {

// The top bit is set where x is infinite or NaN: its exponent is all ones.
inline std::uint32_t not_finite(float x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) + 0x00800000u;
}

inline bool all_finite(const float* x, std::int64_t count) {
  std::uint32_t wrong = 0;
  for (std::int64_t i = 0; i < count; ++i) wrong |= not_finite(x[i]);
  return wrong >> 31 == 0;
}

}  // namespace scdr
