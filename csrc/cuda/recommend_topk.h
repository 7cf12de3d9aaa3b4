// Between the two halves of recommend_topk on CUDA: the torch side (memory, sorting) and the
// kernels.
#pragma once

#include <cstdint>

#include "math/recommend_topk.h"

namespace scdr::cuda {

constexpr int kTopkUsers = 4;  // of a block
constexpr int kTopkThreads = 256;
constexpr int kTopkTile = 2 * kTopkThreads;  // items that a block scores at a time

struct TopkArguments {
  const float* users;                   // [n_users, d]
  const float* items;                   // [n_items, d]
  const float* offsets;                 // [n_items] or null
  const std::int64_t* exclude_offsets;  // [n_users + 1] or null
  const std::int32_t* exclude32;        // [n_excluded]; at most one of the two is set
  const std::int64_t* exclude64;
  std::int64_t n_users, n_items, n_excluded;
  int d;
};

struct TopkOutput {
  float* scores;        // [n_users, width]
  std::int64_t* items;  // [n_users, width]
  std::int64_t width;   // as asked for
  std::int64_t k;       // the same, or as many items as there are
  // Candidates of each user: as many as a power of two, at least topk_room(k).
  std::int64_t room;
  std::uint64_t* candidates;  // [blocks, kTopkUsers, room]; null where they fit into shared memory
  std::int64_t blocks;
};

// What is wrong with the arguments can be told from this.
struct TopkFound {
  std::uint32_t user, item, offset;  // the largest magnitudes, as bits
  std::uint32_t falls;        // not 0 where exclude_offsets fall or do not end where they must
  long long lowest, highest;  // of the excluded items, and 0
};

inline std::int64_t topk_room(std::int64_t k) {
  std::int64_t room = 1024;
  while (room < k + kTopkTile) room *= 2;
  return room;
}
constexpr std::int64_t kTopkSharedRoom = 1024;

// All of these run on `stream` of `device`. Waits for it.
TopkFound topk_check(const TopkArguments& arguments, TopkFound* found, int device, void* stream);
// keys[e] = user * n_items + item, for each excluded item of each user.
void topk_exclusion_keys(const TopkArguments& arguments, std::int64_t* keys, int device,
                         void* stream);
// excluded: those keys, ascending.
void topk_recommend(const TopkArguments& arguments, const std::int64_t* excluded,
                    const TopkOutput& output, int device, void* stream);

}  // namespace scdr::cuda
