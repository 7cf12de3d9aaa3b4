// Between the parts of recommend_topk on the CPU: the driver (checks, threads, ranking), the order
// in which items are visited, and the scan over them, which is compiled once for each SIMD level.
#pragma once

#include <cstdint>

#include "math/recommend_topk.h"

namespace scdr {

constexpr int kTileItems = 256;  // items that are turned together
constexpr int kBoundNorms = 8;

struct TopkItems {
  const float* vectors;  // [count, d]
  const float* offsets;  // [count] or null
  std::int64_t count, tiles;
  int d;
  // The visits, in tiles of kTileItems; null for the order of the items.
  const std::int32_t* order;  // [count]
  // No score from a tile on exceeds a certain function of the length of the user vector, convex and
  // known at kBoundNorms lengths; null if it is not known.
  const double* bounds;  // [tiles, kBoundNorms]
};

// A user during a scan. An item can be among the best if its score is at least the threshold and
// its key is above the worst.
struct TopkUser {
  std::int64_t row;
  const float* vector;           // [d]
  const std::int32_t* excluded;  // ascending
  const std::int32_t* excluded_end;
  std::uint64_t* candidates;  // keys
  std::uint64_t worst;
  std::int32_t count;
  float threshold;
  // The most that a tile's items reach: base + (1 - weight) bounds[point] + weight bounds[point +
  // 1].
  std::int32_t point;
  double weight, base;
};

// The scan keeps fewer than `room` candidates of a user: this drops all but the best of them and
// raises threshold and worst.
struct TopkRoom {
  std::int32_t room, k;
  void (*keep_best)(TopkUser& user, std::int32_t k);
};

constexpr int kWidestPack = 16;  // so many candidates may be added beyond the room

// Adds the candidates among the items of every `every`-th tile to those of the users, whose order
// it changes. tile: scratch for (d + 1) * kTileItems.
using TopkScan = void(const TopkItems& items, std::int64_t every, TopkUser* users,
                      std::int64_t n_users, const TopkRoom& room, float* tile);

namespace scalar {
TopkScan topk_scan;
}  // namespace scalar
#if defined(__x86_64__)
namespace avx2 {
TopkScan topk_scan;
}  // namespace avx2
namespace avx512 {
TopkScan topk_scan;
}  // namespace avx512
#endif

}  // namespace scdr
