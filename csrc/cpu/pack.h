// The packs (see math/) of the SIMD level that this file is compiled for: SCDR_LEVEL names it and
// its namespace. Nothing here is shared between levels.
#pragma once

#if !defined(SCDR_LEVEL_SCALAR)
#include <immintrin.h>
#endif

#define SCDR_PACK_OP static inline __attribute__((always_inline))

namespace scdr::SCDR_LEVEL {

#if defined(SCDR_LEVEL_SCALAR)

// Portable: one factor at a time; compilers vectorise what they can.
struct Pack1 {
  static constexpr int width = 1;
  float x;

  static float root(float s) { return __builtin_sqrtf(s); }
  static float copysign(float s, float t) { return __builtin_copysignf(s, t); }
  static Pack1 all(float s) { return {s}; }
  static Pack1 load(const float* p, int) { return {*p}; }
  static Pack1 load_padded(const float* p, int) { return {*p}; }
};
SCDR_PACK_OP void store(float* p, int, Pack1 a) { *p = a.x; }
SCDR_PACK_OP void store_padded(float* p, int, Pack1 a) { *p = a.x; }
SCDR_PACK_OP Pack1 operator+(Pack1 a, Pack1 b) { return {a.x + b.x}; }
SCDR_PACK_OP Pack1 operator-(Pack1 a, Pack1 b) { return {a.x - b.x}; }
SCDR_PACK_OP Pack1 operator*(Pack1 a, Pack1 b) { return {a.x * b.x}; }
SCDR_PACK_OP Pack1 fma(Pack1 a, Pack1 b, Pack1 c) { return {a.x * b.x + c.x}; }
SCDR_PACK_OP Pack1 operator/(Pack1 a, Pack1 b) { return {a.x / b.x}; }
SCDR_PACK_OP Pack1 root(Pack1 a) { return {Pack1::root(a.x)}; }
SCDR_PACK_OP Pack1 abs(Pack1 a) { return {__builtin_fabsf(a.x)}; }
SCDR_PACK_OP int nonzero(Pack1 a) { return a.x != 0.0f; }
SCDR_PACK_OP Pack1 sign(Pack1 a) { return {static_cast<float>((a.x > 0.0f) - (a.x < 0.0f))}; }
SCDR_PACK_OP float sum(Pack1 a) { return a.x; }

template <int D>
using PackFor = Pack1;

#else

struct Pack8 {
  static constexpr int width = 8;
  __m256 x;

  static float root(float s) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(s))); }
  static float copysign(float s, float t) { return __builtin_copysignf(s, t); }
  static Pack8 all(float s) { return {_mm256_set1_ps(s)}; }
  static Pack8 load(const float* p, int n);
  static Pack8 load_padded(const float* p, int) { return {_mm256_loadu_ps(p)}; }
};
// The first n <= 4 floats, and never a byte more: a masked access of the full width would touch the
// next cache line, which nobody has asked for.
SCDR_PACK_OP __m128 load_part(const float* p, int n) {
  if (n >= 4) return _mm_loadu_ps(p);
  if (n == 1) return _mm_load_ss(p);
  const __m128 two = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return n == 2 ? two : _mm_movelh_ps(two, _mm_load_ss(p + 2));
}
SCDR_PACK_OP void store_part(float* p, int n, __m128 a) {
  if (n >= 4) {
    _mm_storeu_ps(p, a);
  } else if (n == 1) {
    _mm_store_ss(p, a);
  } else {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), a);
    if (n == 3) _mm_store_ss(p + 2, _mm_movehl_ps(a, a));
  }
}
inline __attribute__((always_inline)) Pack8 Pack8::load(const float* p, int n) {
  if (n >= width) return {_mm256_loadu_ps(p)};
  if (n <= 4) return {_mm256_zextps128_ps256(load_part(p, n))};
  return {_mm256_set_m128(load_part(p + 4, n - 4), _mm_loadu_ps(p))};
}
SCDR_PACK_OP void store(float* p, int n, Pack8 a) {
  if (n >= Pack8::width) {
    _mm256_storeu_ps(p, a.x);
    return;
  }
  store_part(p, n, _mm256_castps256_ps128(a.x));
  if (n > 4) store_part(p + 4, n - 4, _mm256_extractf128_ps(a.x, 1));
}
SCDR_PACK_OP void store_padded(float* p, int, Pack8 a) { _mm256_storeu_ps(p, a.x); }
SCDR_PACK_OP Pack8 operator+(Pack8 a, Pack8 b) { return {_mm256_add_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack8 operator-(Pack8 a, Pack8 b) { return {_mm256_sub_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack8 operator*(Pack8 a, Pack8 b) { return {_mm256_mul_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack8 fma(Pack8 a, Pack8 b, Pack8 c) { return {_mm256_fmadd_ps(a.x, b.x, c.x)}; }
SCDR_PACK_OP Pack8 operator/(Pack8 a, Pack8 b) { return {_mm256_div_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack8 root(Pack8 a) { return {_mm256_sqrt_ps(a.x)}; }
SCDR_PACK_OP Pack8 abs(Pack8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.x)}; }
SCDR_PACK_OP __m256 nonzero_mask(Pack8 a) {
  return _mm256_cmp_ps(a.x, _mm256_setzero_ps(), _CMP_NEQ_UQ);
}
SCDR_PACK_OP int nonzero(Pack8 a) {
  return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(nonzero_mask(a))));
}
SCDR_PACK_OP Pack8 sign(Pack8 a) {
  const __m256 one = _mm256_or_ps(_mm256_and_ps(a.x, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(1.0f));
  return {_mm256_and_ps(nonzero_mask(a), one)};
}
SCDR_PACK_OP float sum(Pack8 a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.x), _mm256_extractf128_ps(a.x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
// Each in the same order as sum.
SCDR_PACK_OP void sum_both(Pack8 a, Pack8 b, float& sum_a, float& sum_b) {
  const __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.x), _mm256_extractf128_ps(a.x, 1));
  const __m128 y = _mm_add_ps(_mm256_castps256_ps128(b.x), _mm256_extractf128_ps(b.x, 1));
  // x0 + x2, y0 + y2, x1 + x3, y1 + y3
  const __m128 s = _mm_add_ps(_mm_unpacklo_ps(x, y), _mm_unpackhi_ps(x, y));
  const __m128 both = _mm_add_ps(s, _mm_movehl_ps(s, s));
  sum_a = _mm_cvtss_f32(both);
  sum_b = _mm_cvtss_f32(_mm_movehdup_ps(both));
}

#if defined(SCDR_LEVEL_AVX512)

// For a number of factors that fills it; otherwise Pack8 is faster.
struct Pack16 {
  static constexpr int width = 16;
  __m512 x;

  static float root(float s) { return Pack8::root(s); }
  static float copysign(float s, float t) { return Pack8::copysign(s, t); }
  static Pack16 all(float s) { return {_mm512_set1_ps(s)}; }
  static Pack16 load(const float* p, int) { return {_mm512_loadu_ps(p)}; }
  static Pack16 load_padded(const float* p, int) { return {_mm512_loadu_ps(p)}; }
};
SCDR_PACK_OP void store(float* p, int, Pack16 a) { _mm512_storeu_ps(p, a.x); }
SCDR_PACK_OP void store_padded(float* p, int, Pack16 a) { _mm512_storeu_ps(p, a.x); }
SCDR_PACK_OP Pack16 operator+(Pack16 a, Pack16 b) { return {_mm512_add_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack16 operator-(Pack16 a, Pack16 b) { return {_mm512_sub_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack16 operator*(Pack16 a, Pack16 b) { return {_mm512_mul_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack16 fma(Pack16 a, Pack16 b, Pack16 c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
SCDR_PACK_OP Pack16 operator/(Pack16 a, Pack16 b) { return {_mm512_div_ps(a.x, b.x)}; }
SCDR_PACK_OP Pack16 root(Pack16 a) { return {_mm512_sqrt_ps(a.x)}; }
SCDR_PACK_OP Pack16 abs(Pack16 a) { return {_mm512_abs_ps(a.x)}; }
SCDR_PACK_OP __mmask16 nonzero_mask(Pack16 a) {
  return _mm512_cmp_ps_mask(a.x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
SCDR_PACK_OP int nonzero(Pack16 a) { return __builtin_popcount(nonzero_mask(a)); }
SCDR_PACK_OP Pack16 sign(Pack16 a) {
  const __m512 one = _mm512_or_ps(_mm512_and_ps(a.x, _mm512_set1_ps(-0.0f)), _mm512_set1_ps(1.0f));
  return {_mm512_maskz_mov_ps(nonzero_mask(a), one)};
}
SCDR_PACK_OP float sum(Pack16 a) { return _mm512_reduce_add_ps(a.x); }

template <bool full>
struct Choose {
  using Pack = Pack8;
};
template <>
struct Choose<true> {
  using Pack = Pack16;
};
template <int D>
using PackFor = typename Choose<(D > 0 && D % 16 == 0)>::Pack;

#else

template <int D>
using PackFor = Pack8;

#endif
#endif

}  // namespace scdr::SCDR_LEVEL
