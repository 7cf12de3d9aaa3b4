// Between the two halves of mapping_sgd_epoch_ on CUDA: the torch side (memory, sorting) and the
// kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/mapping_gradient.h"
#include "cuda/ratings.h"
#include "math/mapping_sgd_epoch.h"

namespace scdr::cuda {

// Batches of so many rows are a block's work, and one launch does many of them.
constexpr std::int64_t kMostRowsOfBlock = 1024;

struct MappingWrong {
  WrongRatings ratings;
  std::int64_t tensor;  // the first that holds a value that is not finite, kNowhere if none does
};

struct MappingParameter {
  float* x;
  float* first;  // Adam's moments, or null
  float* second;
};

enum MappingFault : int { kFine = 0, kError = 1, kGradient = 2, kUpdate = 3 };

struct MappingState {
  double scale;        // of the batch's gradient
  double loss;         // sum of the squared errors so far
  std::int64_t batch;  // the batch whose result is not finite
  int fault;           // and what it is; nothing is applied after it
};

struct MappingEpoch {
  Ratings ratings;
  const float* item;         // [I, d_target]
  float* user_vectors;       // [U, d_source]
  MappingParameter user;     // x null: not trained
  MappingParameter part[4];  // w1, b1, w2, b2
  PgdMlp mlp;
  std::int64_t batch_size;
  // Visits in order of (batch, user, visit): each user's visits of a batch lie together. null where
  // users are not trained.
  const std::int64_t* keys;    // [visits]
  const std::int64_t* sorted;  // [visits] visits
  double clip_norm;            // infinite: does not clip
  MappingUpdate update[2];     // of the mapping, of users; without clipping and Adam's step
  const AdamStep* adam_steps;  // [batches, 2], or null

  // Scratch.
  float* error;          // [batch]
  float* user_gradient;  // [batch, d_source]
  float* user_sum;       // [batch, d_source] at the first of a user's sorted visits
  MappingGradient over_mapping;
  MappingState* state;
};

// All of these run on `stream` of `device`; those that return something wait for it. tensors: which
// must hold finite values only; the first of them that does not is named by its place.
MappingWrong mapping_check(const Ratings& ratings, const float* const* tensors,
                           const std::int64_t* counts, int number, MappingWrong* status, int device,
                           void* stream);
// key = batch * n_users + user, for each visit.
void mapping_keys(const Ratings& ratings, std::int64_t batch_size, std::int64_t* keys, int device,
                  void* stream);
void mapping_start(const MappingEpoch& epoch, int device, void* stream);
// The batches [begin, end); returns the state after them, and waits for it.
MappingState mapping_batches(const MappingEpoch& epoch, std::int64_t begin, std::int64_t end,
                             int device, void* stream);
void copy_to_device(void* to, const void* from, std::size_t bytes, int device, void* stream);
void copy_to_host(void* to, const void* from, std::size_t bytes, int device, void* stream);

}  // namespace scdr::cuda
