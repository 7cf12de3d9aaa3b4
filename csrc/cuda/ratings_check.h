// The check of an epoch's ratings.
#pragma once

#include "cuda/launch.h"
#include "cuda/ratings.h"

namespace scdr::cuda {
namespace {

constexpr int kCheckThreads = 256;

__device__ std::int64_t row_of(const Ratings& ratings, std::int64_t visit) {
  return ratings.order32 != nullptr ? ratings.order32[visit] : ratings.order64[visit];
}

__device__ void note_first(std::int64_t* first, std::int64_t at) {
  atomicMin(reinterpret_cast<unsigned long long*>(first), static_cast<unsigned long long>(at));
}

__device__ bool outside(std::int64_t index, std::int64_t n) { return index < 0 || index >= n; }

__global__ void check_kernel(Ratings ratings, WrongRatings* first) {
  for (std::int64_t row = thread_of_grid(); row < ratings.rows; row += threads_of_grid()) {
    if (outside(ratings.users[row], ratings.n_users)) note_first(&first->users, row);
    if (outside(ratings.items[row], ratings.n_items)) note_first(&first->items, row);
    if (!isfinite(ratings.ratings[row])) note_first(&first->ratings, row);
  }
  for (std::int64_t visit = thread_of_grid(); visit < ratings.visits; visit += threads_of_grid())
    if (outside(row_of(ratings, visit), ratings.rows)) note_first(&first->order, visit);
}

// `first` holds kNowhere.
inline void check_ratings(const char* op, const Ratings& ratings, WrongRatings* first,
                          cudaStream_t stream) {
  const std::int64_t most = ratings.rows < ratings.visits ? ratings.visits : ratings.rows;
  launch(op, {blocks_for(most, kCheckThreads), kCheckThreads, stream}, check_kernel, ratings,
         first);
}

}  // namespace
}  // namespace scdr::cuda
