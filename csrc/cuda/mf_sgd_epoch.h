// Between the two halves of mf_sgd_epoch_ on CUDA: the torch side (memory, sorting) and the
// kernels.
#pragma once

#include <cstdint>

#include "math/mf_sgd_epoch.h"

namespace scdr::cuda {

// Ratings as they were passed. Exactly one of the two orders is set.
struct MfRatings {
  const std::int32_t* users;  // [rows]
  const std::int32_t* items;  // [rows]
  const float* ratings;       // [rows]
  const std::int32_t* order32;
  const std::int64_t* order64;  // [visits]
  std::int64_t rows, visits, n_users, n_items;
};

// The rating visited, brought together once an epoch: one read instead of two that wait for
// each other.
struct alignas(16) MfVisit {
  std::int32_t user, item;
  float rating, unused;
};

// A table and its biases, or one of Adam's moments of them.
struct MfTable {
  float* factors;  // [N, d] or null
  float* bias;     // [N] or null
};

// One side of the factorisation: users or items.
struct MfSide {
  MfTable table, first, second;
  const float* inverse_count;  // [N] or null
  float* step;                 // [batch, d]
  float* bias_step;            // [batch]
  // Visits in order of (batch, row of the table, visit): each row's visits of a batch lie together.
  const std::int64_t* keys;    // [visits]
  const std::int64_t* sorted;  // [visits] visits
  std::int64_t rows;           // N
};

// The first visit in a batch where something is not finite: the error, or what an update left.
struct MfBad {
  std::int64_t error, result;
};

constexpr std::int64_t kNone = 0x7f7f7f7f7f7f7f7f;  // in every status: nothing found
constexpr int kLossBlocks = 256;
// Squares are summed by so many rows of a batch, then over those sums.
constexpr std::int64_t kSquaresTogether = 1024;

struct MfEpoch {
  const MfVisit* visits;  // [visits]
  MfSide user, item;
  MfSettings settings;
  Inner inner;
  int d;
  std::int64_t batch_size;
  float* error;  // [visits]
  MfBad* bad;
  // Where the gradient of a row is needed as a whole: for clipping, for Adam, or for both.
  bool clips, adam;
  double lr, clip_norm;
  AdamStep adam_step;       // but for its size,
  const float* adam_sizes;  // [batches] of the slice
  double* squares;          // [2 batch] of each row's gradient
  double* sums_of_squares;  // [2 batch / kSquaresTogether, rounded up]

  bool gathers() const { return clips || adam; }
};

// Where an argument is first wrong, kNone where it is not.
struct MfWrong {
  std::int64_t users, items, ratings, order;
};

// All of these run on `stream` of `device`; those that return something wait for it.
MfWrong mf_check(const MfRatings& ratings, MfWrong* status, int device, void* stream);
// The visits, and key = batch * (rows of the table) + row of each.
void mf_prepare(const MfRatings& ratings, std::int64_t batch_size, MfVisit* visits,
                std::int64_t* user_keys, std::int64_t* item_keys, int device, void* stream);
// The visits [begin, end), whole batches but for the last of the epoch; sizes: Adam's, [batches].
MfBad mf_slice(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
               void* stream);
void mf_copy_sizes(const float* from, float* to, std::int64_t count, int device, void* stream);
// The sum of squared errors; part: [kLossBlocks].
void mf_loss(const float* error, std::int64_t visits, double* part, double* loss, int device,
             void* stream);
// One element, for an error message.
std::int64_t read_index(const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at,
                        int device, void* stream);

}  // namespace scdr::cuda
