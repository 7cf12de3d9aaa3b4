// Whether arrays hold only finite numbers, in less time than reading them takes.
#pragma once

#include <bit>
#include <cstdint>

#include "math/pgd_perturb_mlp.h"

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

// Which columns of the rows [begin, end) are not finite: kNotFinite...
inline unsigned find_wrong(const RowsToCheck& rows, std::int64_t begin, std::int64_t end) {
  const auto wrong = [&](const float* x, std::int64_t width) {
    return !all_finite(x + begin * width, (end - begin) * width);
  };
  return (wrong(rows.user, rows.d_source) ? kNotFiniteUser : 0u) |
         (wrong(rows.item, rows.d_target) ? kNotFiniteItem : 0u) |
         (wrong(rows.rating, 1) ? kNotFiniteRating : 0u);
}

}  // namespace scdr
