// Between the two halves of mf_sgd_epoch_ on CUDA: the torch side (memory, sorting) and the
// kernels.
#pragma once

#include <cstdint>

#include "cuda/ratings.h"
#include "math/mf_sgd_epoch.h"

namespace scdr::cuda {

// What a visit of a batch has to do with the others of its row of a table: the lowest 15 bits are
// the next of them, by its place in the batch, or kNoNext; the highest tells whether it is the
// first.
using MfLink = std::uint16_t;
constexpr MfLink kFirst = 0x8000, kNoNext = 0x7fff;

// The rating visited, brought together once an epoch: one read instead of two that wait for
// each other. The links are there where one block does a batch.
struct alignas(16) MfVisit {
  std::int32_t user, item;
  float rating;
  MfLink user_link, item_link;
};

// A visit as its side sees it: which row of the table, and which visit of the batch.
struct MfPlace {
  std::int32_t row;
  std::uint32_t in_batch;
};

// A table and its biases, or one of Adam's moments of them.
struct MfTable {
  float* factors;  // [N, d] or null
  float* bias;     // [N] or null
  bool in_pairs;   // factors may be read two at a time
};

// One side of the factorisation: users or items.
struct MfSide {
  MfTable table, first, second;
  const float* inverse_count;  // [N] or null
  float* step;                 // [batch, d]
  float* bias_step;            // [batch]
  // In order of (batch, row of the table, visit): each row's visits of a batch lie together. Null,
  // as are the steps, where one block does a batch.
  const MfPlace* places;  // [visits]
};

// The first visit in a batch where something is not finite: the error, or what an update left.
struct MfBad {
  std::int64_t error, result;
};

constexpr int kLossBlocks = 256;
// Squares are summed by so many rows of a batch, then over those sums.
constexpr unsigned kSquaresTogether = 1024;
// So that visits of a batch, both sides together, are numbered in 32 bits.
constexpr std::int64_t kMostVisits = std::int64_t{1} << 31;

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

// All of these run on `stream` of `device`; those that return something wait for it.
WrongRatings mf_check(const Ratings& ratings, WrongRatings* status, int device, void* stream);
// The visits, and key = batch * (rows of the table) + row of each.
void mf_prepare(const Ratings& ratings, std::int64_t batch_size, MfVisit* visits,
                std::int64_t* user_keys, std::int64_t* item_keys, int device, void* stream);
// Whether one block does batches of so many visits. It leaves the other multiprocessors to other
// trainings.
bool mf_fits_block(std::int64_t batch, int d, int device);
// For one block, and for the grid: from such keys of one side in rising order, and the visits that
// they are of.
void mf_link(const std::int64_t* keys, const std::int64_t* sorted, std::int64_t visits,
             std::int64_t batch_size, MfVisit* linked, bool of_users, int device, void* stream);
void mf_places(const std::int64_t* keys, const std::int64_t* sorted, std::int64_t visits,
               std::int64_t batch_size, std::int64_t rows_of_table, MfPlace* places, int device,
               void* stream);
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
