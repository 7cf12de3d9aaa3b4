// The pack of rows (see math/pgd_perturb_mlp.h) of the SIMD level that this file is compiled for: a
// register with one column of as many rows as it has places.
#pragma once

#include <cstdint>
#include <utility>

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
SCDR_INLINE __mmask16 places(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
SCDR_INLINE RowPack load_first(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(places(n), p)};
}
SCDR_INLINE void store_first(float* p, int n, RowPack a) {
  _mm512_mask_storeu_ps(p, places(n), a.x);
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
SCDR_INLINE __m256i places(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SCDR_INLINE RowPack load_first(const float* p, int n) { return {_mm256_maskload_ps(p, places(n))}; }
SCDR_INLINE void store_first(float* p, int n, RowPack a) { _mm256_maskstore_ps(p, places(n), a.x); }
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
SCDR_INLINE RowPack load_first(const float* p, int n) { return RowPack::column(p, 1, n); }
SCDR_INLINE void store_first(float* p, int n, RowPack a) { store_column(p, 1, n, a); }
#endif

// load_first and store_first touch the first n places of a row, and not a byte beyond.

template <int Step, int... At>
SCDR_INLINE void swap_blocks(RowPack& a, RowPack& b, std::integer_sequence<int, At...>) {
  constexpr int w = RowPack::width;
  const RowPack::Vector from = a.x;
  a.x = __builtin_shufflevector(from, b.x, ((At & Step) == 0 ? At : w + At - Step)...);
  b.x = __builtin_shufflevector(from, b.x, ((At & Step) == 0 ? At + Step : w + At)...);
}

// Place j of x[i] and place i of x[j] change places, for all of a square.
template <int Step = RowPack::width / 2>
SCDR_INLINE void transpose(RowPack* x) {
  SCDR_UNROLL_KNOWN
  for (int i = 0; i < RowPack::width; ++i)
    if ((i & Step) == 0)
      swap_blocks<Step>(x[i], x[i + Step], std::make_integer_sequence<int, RowPack::width>());
  if constexpr (Step > 1) transpose<Step / 2>(x);
}

// Columns [0, n) of up to a pack of rows, where row(i) points to row number i. Reading a column
// value by value takes three times as long.
template <class Row>
SCDR_INLINE void load_columns(const Row& row, int n, int count, RowPack* columns) {
  constexpr int w = RowPack::width;
  for (int k = 0; k < n; k += w) {
    const int some = n - k < w ? n - k : w;
    RowPack square[w];
    SCDR_UNROLL_KNOWN
    for (int i = 0; i < w; ++i)
      square[i] = i < count ? load_first(row(i) + k, some) : RowPack::all(0.0f);
    transpose(square);
    SCDR_UNROLL_KNOWN
    for (int j = 0; j < w; ++j)
      if (j < some) columns[k + j] = square[j];
  }
}
SCDR_INLINE void load_columns(const float* p, int n, int count, RowPack* columns) {
  load_columns([&](int i) { return p + std::int64_t{i} * n; }, n, count, columns);
}
SCDR_INLINE void store_columns(float* p, int n, int count, const RowPack* columns) {
  constexpr int w = RowPack::width;
  for (int k = 0; k < n; k += w) {
    const int some = n - k < w ? n - k : w;
    RowPack square[w];
    SCDR_UNROLL_KNOWN
    for (int j = 0; j < w; ++j) square[j] = j < some ? columns[k + j] : RowPack::all(0.0f);
    transpose(square);
    SCDR_UNROLL_KNOWN
    for (int i = 0; i < w; ++i)
      if (i < count) store_first(p + std::int64_t{i} * n + k, some, square[i]);
  }
}

}  // namespace scdr::SCDR_LEVEL
