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

// The gradient of the mapping: those of w1, b1, w2, b2 one after the other; of a bias that there is
// not, null.
struct MappingGradient {
  float *w1, *b1, *w2, *b2;
};

struct MappingKernel {
  // How many values the sums of compute are, in an order of their own.
  std::int64_t (*size_of_sums)(const PgdMlp&);
  // For count rows, at most kMappingRows: their errors, each one's gradient over its user
  // [count, d_source], and the sum of their gradients over the mapping, which is added to sums. The
  // loss is scale / 2 times the sum of the squared errors.
  void (*compute)(const PgdMlp&, const float* user, const float* item, const MappingVisit*,
                  int count, float scale, float* error, float* user_gradient, float* sums);
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

}  // namespace scdr
