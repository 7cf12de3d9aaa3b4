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

// One side of the factorisation: users or items.
struct MfSide {
  float* factors;              // [N, d]
  float* bias;                 // [N] or null
  const float* inverse_count;  // [N] or null
  float* step;                 // [batch, d]
  float* bias_step;            // [batch] or null
  // Visits in order of (batch, row of the table, visit): each row's visits of a batch lie together.
  const std::int64_t* keys;    // [visits]
  const std::int64_t* sorted;  // [visits] visits
};

struct MfEpoch {
  MfRatings ratings;
  MfSide user, item;
  MfSettings settings;
  Inner inner;
  int d;
  std::int64_t batch_size;
  float* error;              // [visits]
  std::int64_t* not_finite;  // [1] the first visit whose error is not finite
  double* block_loss;        // [kLossBlocks]
  double* loss;              // [1]
};

constexpr int kLossBlocks = 256;
constexpr std::int64_t kNone = 0x7f7f7f7f7f7f7f7f;  // in every status: nothing found

// Where an argument is first wrong, kNone where it is not.
struct MfWrong {
  std::int64_t users, items, ratings, order;
};

// All of these run on `stream` of `device`; those that return something wait for it.
MfWrong mf_check(const MfRatings& ratings, std::int64_t* status, int device, void* stream);
// key = batch * (rows of the table) + row, for each visit.
void mf_keys(const MfRatings& ratings, std::int64_t batch_size, std::int64_t* user_keys,
             std::int64_t* item_keys, int device, void* stream);
// Returns the first visit whose error is not finite, or kNone.
std::int64_t mf_epoch(const MfEpoch& epoch, int device, void* stream);
// One element, for an error message.
std::int64_t read_index(const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at,
                        int device, void* stream);

}  // namespace scdr::cuda
