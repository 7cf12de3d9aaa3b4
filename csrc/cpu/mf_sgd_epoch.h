// Between the two halves of mf_sgd_epoch_ on the CPU: the driver (batches, threads, checks) and the
// row kernels, which are compiled once for each SIMD level.
#pragma once

#include <cstdint>

#include "math/mf_sgd_epoch.h"

namespace scdr {

// The table of one side, users or items: row i has its factors at factors + i * stride, its bias at
// bias[i * column_stride] and its inverse count likewise; the last two may be null.
struct MfTable {
  float* factors;
  std::int64_t stride;
  float* bias;
  const float* inverse_count;
  std::int64_t column_stride;
};

struct MfTables {
  MfTable user;
  MfTable item;
  int d;
};

// One rating, in one cache line: order visits them at random, and three arrays would miss thrice.
struct alignas(16) MfRating {
  std::int32_t user;
  std::int32_t item;
  float rating;
};

// The ratings around the one being worked on. Visit number p of the epoch lies at ring[p & mask].
struct MfVisits {
  const MfRating* ring;
  std::int64_t mask;
  std::int64_t end;  // the visits before this one are in the ring
};

// What the rows of a batch ask to be taken off the tables.
struct MfSteps {
  float* error;      // [batch] at the perturbed vectors
  float* user;       // [batch, stride]
  float* item;       // [batch, stride]
  float* user_bias;  // [batch]
  float* item_bias;  // [batch]
};

// Adam's moments of both tables, laid out as these; null factors: none.
struct MfMoments {
  MfTable user_first, user_second, item_first, item_second;
};

// Where the visits to one row of a table in one batch come together: at the first of them, whose
// number in the epoch is kept for each row. Below the number of the batch's first visit: not yet
// visited.
struct MfFirstVisits {
  std::int64_t* user;
  std::int64_t* item;
};

// The functions take a batch by the number of its first visit, and do the part of it that lies in
// the visits [begin, end).
struct MfKernel {
  std::int64_t stride;
  // The steps of the visits, from the tables as they are; returns the sum of the squared errors.
  double (*compute)(const MfTables&, const MfVisits&, const MfSettings&, const MfSteps&,
                    std::int64_t batch, std::int64_t begin, std::int64_t end);
  // Takes the steps off the rows that belong to thread `part` of `parts`, in order of visit.
  void (*apply)(const MfTables&, const MfVisits&, const MfSteps&, std::int64_t batch,
                std::int64_t begin, std::int64_t end, std::uint32_t part, std::uint32_t parts);

  // Instead of apply, where the gradient of a row is needed as a whole. The steps are gradients
  // then: learning rate 1. First they are summed up over the visits to a row, in order of visit ...
  void (*gather)(const MfTables&, const MfVisits&, const MfSteps&, const MfFirstVisits&,
                 std::int64_t batch, std::int64_t begin, std::int64_t end, std::uint32_t part,
                 std::uint32_t parts);
  // ... then their squares are, over the rows first visited here ...
  double (*square_sum)(const MfTables&, const MfVisits&, const MfSteps&, const MfFirstVisits&,
                       std::int64_t batch, std::int64_t begin, std::int64_t end);
  // ... and those rows are updated. Returns whether all of them are finite.
  bool (*update)(const MfTables&, const MfMoments&, const MfVisits&, const MfSteps&,
                 const MfFirstVisits&, const MfUpdate&, std::int64_t batch, std::int64_t begin,
                 std::int64_t end);
};

// The kernel for d factors, by SIMD level. A plain one knows no biases, counts or penalties.
using PickMfKernel = MfKernel(Inner inner, int d, bool plain);
namespace scalar {
PickMfKernel mf_kernel;
}
#if defined(__x86_64__)
namespace avx2 {
PickMfKernel mf_kernel;
}
namespace avx512 {
PickMfKernel mf_kernel;
}
#endif

}  // namespace scdr
