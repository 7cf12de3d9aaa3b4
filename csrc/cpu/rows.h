// The pack of rows (see math/pgd_perturb_mlp.h) of the SIMD level that this file is compiled for: a
// register with one column of as many rows as it has places.
#pragma once

#include <cstdint>

#include "math/inline.h"

#if !defined(SCDR_LEVEL_SCALAR)
#include <immintrin.h>
#endif

namespace scdr::SCDR_LEVEL {

#if defined(SCDR_LEVEL_AVX512)
constexpr int kPackRows = 16;
#elif defined(SCDR_LEVEL_AVX2)
constexpr int kPackRows = 8;
#else
constexpr int kPackRows = 4;  // what every 64-bit processor has
#endif

struct RowPack {
  static constexpr int width = kPackRows;
  typedef float Vector __attribute__((vector_size(sizeof(float) * kPackRows)));
  Vector x;

  static RowPack all(float s) { return {s - Vector{}}; }
  static RowPack load(const float* p) {
    RowPack a;
    __builtin_memcpy(&a.x, p, sizeof(a.x));
    return a;
  }
  static RowPack column(const float* p, std::int64_t stride, int n) {
    RowPack a{};
    for (int i = 0; i < n; ++i) a.x[i] = p[i * stride];
    return a;
  }
};
SCDR_INLINE void store_column(float* p, std::int64_t stride, int n, RowPack a) {
  for (int i = 0; i < n; ++i) p[i * stride] = a.x[i];
}
SCDR_INLINE void store(float* p, RowPack a) { __builtin_memcpy(p, &a.x, sizeof(a.x)); }

SCDR_INLINE RowPack operator+(RowPack a, RowPack b) { return {a.x + b.x}; }
SCDR_INLINE RowPack operator-(RowPack a, RowPack b) { return {a.x - b.x}; }
SCDR_INLINE RowPack operator-(RowPack a) { return {-a.x}; }
SCDR_INLINE RowPack operator*(RowPack a, RowPack b) { return {a.x * b.x}; }
SCDR_INLINE RowPack operator/(RowPack a, RowPack b) { return {a.x / b.x}; }
SCDR_INLINE RowPack sign(RowPack a) {
  const RowPack::Vector zero{}, one = RowPack::all(1.0f).x;
  return {(a.x > zero ? one : zero) - (a.x < zero ? one : zero)};
}

#if defined(SCDR_LEVEL_AVX512)
SCDR_INLINE RowPack fma(RowPack a, RowPack b, RowPack c) {
  return {_mm512_fmadd_ps(a.x, b.x, c.x)};
}
SCDR_INLINE RowPack min(RowPack a, RowPack b) { return {_mm512_min_ps(a.x, b.x)}; }
SCDR_INLINE RowPack max(RowPack a, RowPack b) { return {_mm512_max_ps(a.x, b.x)}; }
SCDR_INLINE RowPack root(RowPack a) { return {_mm512_sqrt_ps(a.x)}; }
SCDR_INLINE unsigned where_at_least(RowPack a, RowPack b) {
  return _mm512_cmp_ps_mask(a.x, b.x, _CMP_GE_OQ);
}
#elif defined(SCDR_LEVEL_AVX2)
SCDR_INLINE RowPack fma(RowPack a, RowPack b, RowPack c) {
  return {_mm256_fmadd_ps(a.x, b.x, c.x)};
}
SCDR_INLINE RowPack min(RowPack a, RowPack b) { return {_mm256_min_ps(a.x, b.x)}; }
SCDR_INLINE RowPack max(RowPack a, RowPack b) { return {_mm256_max_ps(a.x, b.x)}; }
SCDR_INLINE RowPack root(RowPack a) { return {_mm256_sqrt_ps(a.x)}; }
SCDR_INLINE unsigned where_at_least(RowPack a, RowPack b) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.x, b.x, _CMP_GE_OQ)));
}
#else
SCDR_INLINE RowPack fma(RowPack a, RowPack b, RowPack c) { return {a.x * b.x + c.x}; }
SCDR_INLINE RowPack min(RowPack a, RowPack b) { return {a.x < b.x ? a.x : b.x}; }
SCDR_INLINE RowPack max(RowPack a, RowPack b) { return {a.x > b.x ? a.x : b.x}; }
SCDR_INLINE RowPack root(RowPack a) {
  for (int i = 0; i < RowPack::width; ++i) a.x[i] = __builtin_sqrtf(a.x[i]);
  return a;
}
SCDR_INLINE unsigned where_at_least(RowPack a, RowPack b) {
  unsigned bits = 0;
  for (int i = 0; i < RowPack::width; ++i) bits |= (a.x[i] >= b.x[i] ? 1u : 0u) << i;
  return bits;
}
#endif

}  // namespace scdr::SCDR_LEVEL
