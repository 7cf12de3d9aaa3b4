// Ratings and the order of their visits, as an epoch was passed them.
#pragma once

#include <cstdint>

namespace scdr::cuda {

// Exactly one of the two orders is set.
struct Ratings {
  const std::int32_t* users;  // [rows]
  const std::int32_t* items;  // [rows]
  const float* ratings;       // [rows]
  const std::int32_t* order32;
  const std::int64_t* order64;  // [visits]
  std::int64_t rows, visits, n_users, n_items;
};

constexpr std::int64_t kNowhere = 0x7f7f7f7f7f7f7f7f;  // every byte 0x7f, as memset leaves it

// Where each is first wrong, kNowhere where it is not.
struct WrongRatings {
  std::int64_t users, items, ratings, order;
};

}  // namespace scdr::cuda
