// L_SMF of a row (Eq. 10) and its gradients (Eq. 15), over packs as in math/mf_sgd_epoch.h.
#pragma once

#include <cstdint>

#include "math/mf_sgd_epoch.h"

namespace scdr {

constexpr int kMostSharpWidth = 257;  // 256 factors and a bias

struct SharpMfRows {
  const float* user;    // [rows, d]
  const float* item;    // [rows, d]
  const float* rating;  // [rows]
  float* error;         // [rows] e at u + delta*
  float* along;         // [rows] delta* is along sgn(v) or along v, as in MfError
  float* loss;          // [rows] e^2
  int d;
};

struct SharpMfGradients {
  const float* loss;   // [rows] gradient over the loss
  const float* user;   // [rows, d]
  const float* item;   // [rows, d]
  const float* error;  // [rows]
  const float* along;  // [rows]
  float* over_user;    // [rows, d]
  float* over_item;    // [rows, d]
  float* over_rating;  // [rows]
  int d;
};

template <class Pack, Inner inner>
SCDR_INLINE void sharp_mf_loss(const SharpMfRows& rows, const MfSettings& settings,
                               std::int64_t row) {
  const MfError at = mf_error<Pack, inner, 0>(rows.user + row * rows.d, rows.item + row * rows.d,
                                              rows.d, -rows.rating[row], settings);
  rows.error[row] = at.error;
  rows.along[row] = at.along;
  rows.loss[row] = at.error * at.error;
}

// room takes one row of any width: mf_steps writes whole packs.
template <class Pack, Inner inner>
SCDR_INLINE void sharp_mf_gradient(const SharpMfGradients& rows, std::int64_t row,
                                   float (&room)[2][kMostSharpWidth + Pack::width]) {
  const std::int64_t at = row * rows.d;
  mf_steps<Pack, inner, 0, false>(rows.user + at, rows.item + at, rows.d,
                                  {rows.error[row], rows.along[row]}, rows.loss[row], 0.0f, 0.0f,
                                  room[0], room[1]);
  for (int k = 0; k < rows.d; k += Pack::width) {
    store(rows.over_user + at + k, rows.d - k, Pack::load(room[0] + k, rows.d - k));
    store(rows.over_item + at + k, rows.d - k, Pack::load(room[1] + k, rows.d - k));
  }
  rows.over_rating[row] = -2.0f * rows.loss[row] * rows.error[row];
}

}  // namespace scdr
