// Between the two halves of mapping_sgd_epoch_ on the CPU: the driver (batches, threads, checks)
// and the kernels, which are compiled once for each SIMD level.
#pragma once

#include <cstdint>

#include "math/mapping_sgd_epoch.h"

namespace scdr {

// One rating: rows of the tables of user and item vectors, and the residual rating.
struct MappingVisit {
  std::int32_t user;
  std::int32_t item;
  float rating;
};

// A kernel takes rows by so many at most.
constexpr int kMappingRows = 64;

// Gradients over w1, b1, w2, b2; null of a bias that there is not.
struct MappingGradient {
  float *w1, *b1, *w2, *b2;
};

// Rows that are computed together: the sum over them of scale / 2 weight e^2. weight [count] may be
// null: 1.
struct MappingChunk {
  const float* user;  // the whole tables
  const float* item;
  const MappingVisit* visits;
  int count;
  float scale;
  const float* weight;
};

// What is computed of them: errors [count], and the gradients of that sum: over each row's user
// [count, d_source], over each row's item [count, d_target] unless that is null, and over the
// mapping, which is added to sums.
struct MappingOutput {
  float* error;
  float* user;
  float* item;
  float* sums;
};

struct MappingKernel {
  // How many values the sums over the mapping are, in an order of their own.
  std::int64_t (*size_of_sums)(const PgdMlp&);
  void (*compute)(const PgdMlp&, const MappingChunk&, const MappingOutput&);
  // From such sums to the gradient.
  void (*unpack)(const PgdMlp&, const float* sums, const MappingGradient&);
  // Sum of the squares of count values, which is finite where all of them are.
  double (*square_sum)(const float*, std::int64_t count);
  // Rows of n values each: gradient row i updates row number[i] of table and moments. Returns
  // whether all that was written is finite.
  bool (*update)(float* table, float* first, float* second, const std::int32_t* number,
                 std::int64_t count, int n, const float* gradient, const MappingUpdate&);
};

using PickMappingKernel = MappingKernel();
namespace scalar {
PickMappingKernel mapping_kernel;
}
#if defined(__x86_64__)
namespace avx2 {
PickMappingKernel mapping_kernel;
}
namespace avx512 {
PickMappingKernel mapping_kernel;
}
#endif
MappingKernel pick_mapping_kernel();

}  // namespace scdr
