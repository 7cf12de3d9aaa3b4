// L_SMF of a row (Eq. 10) and its gradients (Eq. 15), over packs as in math/mf_sgd_epoch.h.
#pragma once

#include <cstdint>

#include "math/mf_sgd_epoch.h"

namespace scdr {

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
SCDR_INLINE MfError sharp_mf_error(const SharpMfRows& rows, const MfSettings& settings,
                                   std::int64_t row) {
  return mf_error<Pack, inner, 0>(rows.user + row * rows.d, rows.item + row * rows.d, rows.d,
                                  -rows.rating[row], settings);
}

SCDR_INLINE void keep_sharp_mf_loss(const SharpMfRows& rows, std::int64_t row, MfError at) {
  rows.error[row] = at.error;
  rows.along[row] = at.along;
  rows.loss[row] = at.error * at.error;
}

// over_user and over_item have room for a row of whole packs, if packs write their padding.
template <class Pack, Inner inner>
SCDR_INLINE void sharp_mf_gradient(const SharpMfGradients& rows, std::int64_t row, float* over_user,
                                   float* over_item) {
  const std::int64_t at = row * rows.d;
  mf_steps<Pack, inner, 0, false>(rows.user + at, rows.item + at, rows.d,
                                  {rows.error[row], rows.along[row]}, rows.loss[row], 0.0f, 0.0f,
                                  over_user, over_item);
}

SCDR_INLINE void keep_sharp_mf_over_rating(const SharpMfGradients& rows, std::int64_t row) {
  rows.over_rating[row] = -2.0f * rows.loss[row] * rows.error[row];
}

}  // namespace scdr
