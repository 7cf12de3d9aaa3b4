// PGD on the rating loss through f(x) = W2 tanh(W1 x + b1) + b2, all steps of a pack of rows. The
// item folds into the readout, once a row:
//   <f(x), v> - r = c . h + s,   h = tanh(W1 x + b1),  c = W2' v,  s = b2 . v - r
// and the gradient over x has the sign of (c . h + s) W1' (c (1 - h^2)).
//
// Here a pack holds Pack::width rows, one column of them:
//   Pack::column(p, stride, n)     p[0], p[stride], ..., n of them; the other rows read as 0
//   load_columns(p, n, rows, x)    columns x[0, n) of so many rows at p; the other rows read as 0
//   store_columns(p, n, rows, x)
// and each row's result is independent of the others.
#pragma once

#include <cstdint>

#include "math/inline.h"
#include "math/tanh.h"

namespace scdr {

// Of a user or item vector, which may be 256 factors and a bias, and of the hidden layer.
constexpr int kMostPgdWidth = 257;

struct PgdMlp {
  const float* w1;  // [hidden, d_source]
  const float* b1;  // [hidden] or null
  const float* w2;  // [d_target, hidden]
  const float* b2;  // [d_target] or null
  int d_source, d_target, hidden;
  std::int64_t steps;
  // The perturbation is kept in units of the step size, so that squares stay in range.
  float step_size;
  float reach;  // radius / step_size
};

struct PgdRows {
  const float* user;    // [rows, d_source]
  const float* item;    // [rows, d_target]
  const float* rating;  // [rows]
  float* delta;         // [rows, d_source]
};

struct RowsToCheck {
  const float* user;    // [rows, d_source]
  const float* item;    // [rows, d_target]
  const float* rating;  // [rows]
  int d_source, d_target;
};

// What the check of the rows finds, as bits.
constexpr unsigned kNotFiniteUser = 1, kNotFiniteItem = 2, kNotFiniteRating = 4;

// Which hidden units a pack works on, and what comes of those that others do for the same rows. A
// pack does all of them, unless it says otherwise.
template <class Pack>
struct HiddenUnits {
  static SCDR_INLINE int begin(int) { return 0; }
  static SCDR_INLINE int end(int hidden) { return hidden; }
  static SCDR_INLINE Pack sum(Pack part) { return part; }     // over all who share the rows
  static SCDR_INLINE Pack once(Pack whole) { return whole; }  // a summand of one of them
};

SCDR_INLINE float pgd_bias(const float* bias, int i) { return bias != nullptr ? bias[i] : 0.0f; }

// c of J hidden units from number j on.
template <class Pack, int J>
SCDR_INLINE void pgd_readout(const PgdMlp& mlp, int j, const Pack* item, Pack* readout) {
  Pack sum[J];
  SCDR_UNROLL_KNOWN
  for (int i = 0; i < J; ++i) sum[i] = Pack::all(0.0f);
  for (int t = 0; t < mlp.d_target; ++t) {
    const float* weight = mlp.w2 + t * mlp.hidden + j;
    SCDR_UNROLL_KNOWN
    for (int i = 0; i < J; ++i) sum[i] = fma(Pack::all(weight[i]), item[t], sum[i]);
  }
  SCDR_UNROLL_KNOWN
  for (int i = 0; i < J; ++i) readout[j + i] = sum[i];
}

// What J hidden units from number j on add to the error and to the slope W1' (c (1 - h^2)); keep is
// told of each unit's h and c (1 - h^2).
template <class Pack, int D, int J, class Keep>
SCDR_INLINE void pgd_hidden(const PgdMlp& mlp, int j, const Pack* x, const Pack* readout,
                            Pack& error, Pack* slope, const Keep& keep) {
  const int n = D > 0 ? D : mlp.d_source;
  const float* weight = mlp.w1 + j * n;
  Pack unit[J];
  SCDR_UNROLL_KNOWN
  for (int i = 0; i < J; ++i) unit[i] = Pack::all(pgd_bias(mlp.b1, j + i));
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) {
    SCDR_UNROLL_KNOWN
    for (int i = 0; i < J; ++i) unit[i] = fma(Pack::all(weight[i * n + k]), x[k], unit[i]);
  }
  SCDR_UNROLL_KNOWN
  for (int i = 0; i < J; ++i) {
    const Pack h = tanh(unit[i]), c = readout[j + i];
    error = fma(c, h, error);
    unit[i] = c * fma(-h, h, Pack::all(1.0f));
    keep(j + i, h, unit[i]);
  }
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) {
    SCDR_UNROLL_KNOWN
    for (int i = 0; i < J; ++i) slope[k] = fma(Pack::all(weight[i * n + k]), unit[i], slope[k]);
  }
}

// The error at x, and the slope of it over x.
template <class Pack, int D, int J, class Keep>
SCDR_INLINE Pack pgd_error(const PgdMlp& mlp, const Pack* x, const Pack* readout, Pack shift,
                           Pack* slope, const Keep& keep) {
  const int n = D > 0 ? D : mlp.d_source;
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) slope[k] = Pack::all(0.0f);
  using Units = HiddenUnits<Pack>;
  Pack error = Units::once(shift);
  const int end = Units::end(mlp.hidden);
  int j = Units::begin(mlp.hidden);
  for (; j + J <= end; j += J) pgd_hidden<Pack, D, J>(mlp, j, x, readout, error, slope, keep);
  if constexpr (J > 1)
    for (; j < end; ++j) pgd_hidden<Pack, D, 1>(mlp, j, x, readout, error, slope, keep);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) slope[k] = Units::sum(slope[k]);
  return Units::sum(error);
}

// Summed 16 at a time: one long sum could round by more than the ball allows.
template <class Pack, int D>
SCDR_INLINE Pack pgd_norm(const Pack* delta, int d) {
  const int n = D > 0 ? D : d;
  Pack total = Pack::all(0.0f);
  for (int begin = 0; begin < n; begin += 16) {
    const int end = begin + 16 < n ? begin + 16 : n;
    Pack sum = Pack::all(0.0f);
    SCDR_UNROLL_KNOWN
    for (int k = begin; k < end; ++k) sum = fma(delta[k], delta[k], sum);
    total = total + sum;
  }
  return root(total);
}

// The readout c; returns the shift s.
template <class Pack, int J>
SCDR_INLINE Pack pgd_fold_item(const PgdMlp& mlp, const Pack* item, Pack rating, Pack* readout) {
  Pack shift = -rating;
  for (int t = 0; t < mlp.d_target; ++t)
    shift = fma(Pack::all(pgd_bias(mlp.b2, t)), item[t], shift);
  const int end = HiddenUnits<Pack>::end(mlp.hidden);
  int j = HiddenUnits<Pack>::begin(mlp.hidden);
  for (; j + J <= end; j += J) pgd_readout<Pack, J>(mlp, j, item, readout);
  if constexpr (J > 1)
    for (; j < end; ++j) pgd_readout<Pack, 1>(mlp, j, item, readout);
  return shift;
}

// All steps: delta in units of the step size. x and slope are scratch of d_source packs.
template <class Pack, int D, int J>
SCDR_INLINE void pgd_ascend(const PgdMlp& mlp, const Pack* user, const Pack* readout, Pack shift,
                            Pack* x, Pack* slope, Pack* delta) {
  const int n = D > 0 ? D : mlp.d_source;
  const Pack step_size = Pack::all(mlp.step_size);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) delta[k] = Pack::all(0.0f);
  for (std::int64_t step = 0; step < mlp.steps; ++step) {
    SCDR_UNROLL_KNOWN
    for (int k = 0; k < n; ++k) x[k] = fma(step_size, delta[k], user[k]);
    const Pack toward = sign(
        pgd_error<Pack, D, J>(mlp, x, readout, shift, slope, [](int, const Pack&, const Pack&) {}));
    SCDR_UNROLL_KNOWN
    for (int k = 0; k < n; ++k) delta[k] = fma(toward, sign(slope[k]), delta[k]);
    const Pack norm = max(Pack::all(1e-12f), pgd_norm<Pack, D>(delta, n));
    const Pack shrink = min(Pack::all(1.0f), Pack::all(mlp.reach) / norm);
    SCDR_UNROLL_KNOWN
    for (int k = 0; k < n; ++k) delta[k] = delta[k] * shrink;
  }
}

// Of rows of the tables user and item: leaves user, delta in units of the step size, and readout,
// and returns the shift. D = d_source where it is known when compiling, else 0; J hidden units are
// worked on at a time.
template <class Pack, int D, int J>
SCDR_INLINE Pack pgd_ascend_rows(const PgdMlp& mlp, const float* users, const float* items,
                                 const float* rating, std::int64_t row, int count, Pack* user,
                                 Pack* readout, Pack* x, Pack* slope, Pack* delta) {
  const int n = D > 0 ? D : mlp.d_source, d_target = mlp.d_target;
  Pack item[kMostPgdWidth];
  load_columns(items + row * d_target, d_target, count, item);
  const Pack shift =
      pgd_fold_item<Pack, J>(mlp, item, Pack::column(rating + row, 1, count), readout);
  load_columns(users + row * n, n, count, user);
  pgd_ascend<Pack, D, J>(mlp, user, readout, shift, x, slope, delta);
  return shift;
}

template <class Pack, int D, int J>
SCDR_INLINE void pgd_perturb_mlp(const PgdMlp& mlp, const PgdRows& rows, std::int64_t row,
                                 int count) {
  constexpr int most = D > 0 ? D : kMostPgdWidth;
  const int n = D > 0 ? D : mlp.d_source;
  Pack user[most], delta[most], x[most], slope[most], readout[kMostPgdWidth];
  pgd_ascend_rows<Pack, D, J>(mlp, rows.user, rows.item, rows.rating, row, count, user, readout, x,
                              slope, delta);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) delta[k] = Pack::all(mlp.step_size) * delta[k];
  store_columns(rows.delta + row * n, n, count, delta);
}

}  // namespace scdr
