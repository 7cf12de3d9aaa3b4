// The pack of rows (see math/pgd_perturb_mlp.h) of a thread: one row. And the pack of neighbouring
// factors (see math/mf_sgd_epoch.h) of a thread that does a whole row: one factor.
#pragma once

#include <cstdint>

#include "math/inline.h"

namespace scdr::cuda {

struct RowPack {
  static constexpr int width = 1;
  float x;

  static SCDR_INLINE RowPack all(float s) { return {s}; }
  static SCDR_INLINE RowPack load(const float* p) { return {*p}; }
  static SCDR_INLINE RowPack load(const float* p, int) { return {*p}; }
  static SCDR_INLINE float root(float s) { return sqrtf(s); }
  static SCDR_INLINE float copysign(float s, float t) { return copysignf(s, t); }
  static SCDR_INLINE RowPack column(const float* p, std::int64_t, int) { return {*p}; }
};
SCDR_INLINE void store_column(float* p, std::int64_t, int, RowPack a) { *p = a.x; }
SCDR_INLINE void load_columns(const float* p, int n, int, RowPack* columns) {
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) columns[k].x = p[k];
}
SCDR_INLINE void store_columns(float* p, int n, int, const RowPack* columns) {
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) p[k] = columns[k].x;
}
SCDR_INLINE void store(float* p, int, RowPack a) { *p = a.x; }
SCDR_INLINE void store_padded(float* p, int, RowPack a) { *p = a.x; }
SCDR_INLINE RowPack abs(RowPack a) { return {fabsf(a.x)}; }
SCDR_INLINE int nonzero(RowPack a) { return a.x != 0.0f; }
SCDR_INLINE float sum(RowPack a) { return a.x; }
SCDR_INLINE RowPack operator+(RowPack a, RowPack b) { return {a.x + b.x}; }
SCDR_INLINE RowPack operator-(RowPack a, RowPack b) { return {a.x - b.x}; }
SCDR_INLINE RowPack operator-(RowPack a) { return {-a.x}; }
SCDR_INLINE RowPack operator*(RowPack a, RowPack b) { return {a.x * b.x}; }
SCDR_INLINE RowPack operator/(RowPack a, RowPack b) { return {a.x / b.x}; }
SCDR_INLINE RowPack fma(RowPack a, RowPack b, RowPack c) { return {fmaf(a.x, b.x, c.x)}; }
SCDR_INLINE RowPack min(RowPack a, RowPack b) { return {a.x < b.x ? a.x : b.x}; }
SCDR_INLINE RowPack max(RowPack a, RowPack b) { return {a.x > b.x ? a.x : b.x}; }
SCDR_INLINE RowPack sign(RowPack a) { return {static_cast<float>((a.x > 0.0f) - (a.x < 0.0f))}; }
SCDR_INLINE RowPack root(RowPack a) { return {sqrtf(a.x)}; }

}  // namespace scdr::cuda
