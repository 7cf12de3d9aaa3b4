// The packs of threads that do rows. To math/pgd_perturb_mlp.h a pack is one row, which `lanes`
// neighbouring threads of a warp may share: each has the whole vectors and a part of the hidden
// units. To math/mf_sgd_epoch.h it is one factor, of a thread that does a row alone.
#pragma once

#include <cstdint>

#include "math/inline.h"
#include "math/pgd_perturb_mlp.h"

namespace scdr::cuda {

template <int lanes>
struct SharedRowPack {
  static constexpr int width = 1;
  float x;

  static SCDR_INLINE int lane() { return static_cast<int>(threadIdx.x) % lanes; }
  static SCDR_INLINE float root(float s) { return sqrtf(s); }
  static SCDR_INLINE float copysign(float s, float t) { return copysignf(s, t); }
  static SCDR_INLINE SharedRowPack all(float s) { return {s}; }
  static SCDR_INLINE SharedRowPack load(const float* p) { return {*p}; }
  static SCDR_INLINE SharedRowPack load(const float* p, int) { return {*p}; }
  static SCDR_INLINE SharedRowPack column(const float* p, std::int64_t, int) { return {*p}; }
};
using RowPack = SharedRowPack<1>;

#define SCDR_PACK_OP   \
  template <int lanes> \
  SCDR_INLINE
// Of no row at all (count = 0) nothing is stored.
SCDR_PACK_OP void store_column(float* p, std::int64_t, int count, SharedRowPack<lanes> a) {
  if (count > 0 && a.lane() == 0) *p = a.x;
}
SCDR_PACK_OP void load_columns(const float* p, int n, int, SharedRowPack<lanes>* columns) {
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) columns[k].x = p[k];
}
SCDR_PACK_OP void store_columns(float* p, int n, int count, const SharedRowPack<lanes>* columns) {
  if (count == 0 || columns->lane() != 0) return;
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) p[k] = columns[k].x;
}
SCDR_INLINE void store(float* p, int, RowPack a) { *p = a.x; }
SCDR_INLINE void store_padded(float* p, int, RowPack a) { *p = a.x; }
SCDR_INLINE RowPack abs(RowPack a) { return {fabsf(a.x)}; }
SCDR_INLINE int nonzero(RowPack a) { return a.x != 0.0f; }
SCDR_INLINE float sum(RowPack a) { return a.x; }
SCDR_PACK_OP SharedRowPack<lanes> operator+(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x + b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> operator-(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x - b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> operator-(SharedRowPack<lanes> a) { return {-a.x}; }
SCDR_PACK_OP SharedRowPack<lanes> operator*(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x * b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> operator/(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x / b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> fma(SharedRowPack<lanes> a, SharedRowPack<lanes> b,
                                      SharedRowPack<lanes> c) {
  return {fmaf(a.x, b.x, c.x)};
}
SCDR_PACK_OP SharedRowPack<lanes> min(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x < b.x ? a.x : b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> max(SharedRowPack<lanes> a, SharedRowPack<lanes> b) {
  return {a.x > b.x ? a.x : b.x};
}
SCDR_PACK_OP SharedRowPack<lanes> sign(SharedRowPack<lanes> a) {
  return {static_cast<float>((a.x > 0.0f) - (a.x < 0.0f))};
}
SCDR_PACK_OP SharedRowPack<lanes> root(SharedRowPack<lanes> a) { return {sqrtf(a.x)}; }
#undef SCDR_PACK_OP

// Calls body(row, count) for each of `rows` rows, by the lanes that share it. All threads of a warp
// stay together: some may have no row of their own (count = 0), and work along on another.
template <int lanes, class Body>
SCDR_INLINE void for_each_row(std::int64_t thread, std::int64_t threads, std::int64_t rows,
                              Body body) {
  const std::int64_t in_warp = thread % 32 / lanes;
  for (std::int64_t first = thread / 32 * (32 / lanes); first < rows; first += threads / lanes) {
    const bool mine = first + in_warp < rows;
    body(mine ? first + in_warp : rows - 1, mine ? 1 : 0);
  }
}

}  // namespace scdr::cuda

namespace scdr {

template <int lanes>
struct HiddenUnits<cuda::SharedRowPack<lanes>> {
  using Pack = cuda::SharedRowPack<lanes>;

  static SCDR_INLINE int begin(int hidden) { return hidden * Pack::lane() / lanes; }
  static SCDR_INLINE int end(int hidden) { return hidden * (Pack::lane() + 1) / lanes; }
  static SCDR_INLINE Pack sum(Pack part) {
    for (int distance = 1; distance < lanes; distance *= 2)
      part.x += __shfl_xor_sync(0xffffffffu, part.x, distance);
    return part;
  }
  static SCDR_INLINE Pack once(Pack whole) { return {Pack::lane() == 0 ? whole.x : 0.0f}; }
};

}  // namespace scdr
