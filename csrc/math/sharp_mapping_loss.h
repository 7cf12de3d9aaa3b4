// L_SCDR of a pack of rows (Eq. 9): perturbed by PGD, then sent through the mapping once more.
#pragma once

#include "math/pgd_perturb_mlp.h"

namespace scdr {

struct SharpRows {
  const float* user;    // [rows, d_source]
  const float* item;    // [rows, d_target]
  const float* rating;  // [rows]
  float* loss;          // [rows]
  float* moved;         // [rows, d_source] u + delta*
};

struct SharpGradients {
  const float* loss;    // [rows] gradient over the loss
  const float* moved;   // [rows, d_source]
  const float* item;    // [rows, d_target]
  const float* rating;  // [rows]
  float* over_user;     // [rows, d_source]
  float* over_item;     // [rows, d_target] or null
  float* over_rating;   // [rows]
};

template <class Pack, int D, int J>
SCDR_INLINE void sharp_mapping_loss(const PgdMlp& mlp, const SharpRows& rows, std::int64_t row,
                                    int count) {
  constexpr int most = D > 0 ? D : kMostPgdWidth;
  const int n = D > 0 ? D : mlp.d_source;
  Pack user[most], delta[most], x[most], slope[most], readout[kMostPgdWidth];
  const Pack shift = pgd_ascend_rows<Pack, D, J>(mlp, rows.user, rows.item, rows.rating, row, count,
                                                 user, readout, x, slope, delta);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) x[k] = fma(Pack::all(mlp.step_size), delta[k], user[k]);
  store_columns(rows.moved + row * n, n, count, x);
  const Pack error =
      pgd_error<Pack, D, J>(mlp, x, readout, shift, slope, [](int, const Pack&, const Pack&) {});
  store_column(rows.loss + row, 1, count, error * error);
}

}  // namespace scdr
