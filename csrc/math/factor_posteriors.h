// Gaussian posteriors of a pack of users given the moments of the items that they rated (or of
// items given users). With a = (1, b, v) of an item, phi = (1, v), and y = (b, u) of the user,
//   precision = sum E[phi phi'] / noise + P,    right = sum (r E[phi] - E[b phi]) / noise + P m,
//   E[y] = precision^-1 right,                  Cov[y] = precision^-1,
// P and m the prior's precision and mean. Symmetric matrices are packed: their upper triangle, row
// by row. Nothing is fused, so that every SIMD level has the same bits.
#pragma once

#include <cstdint>

#include "math/inline.h"

namespace scdr {

constexpr int kMostPosteriorWidth = 256;  // of the factors

// Place of (i, j), i <= j, in a packed matrix of so many rows; (rows, rows) is its size.
SCDR_SHARED int packed_at(int rows, int i, int j) { return i * rows - i * (i - 1) / 2 + j - i; }

// The widths that follow from d factors.
struct PosteriorWidths {
  int y;        // d + 1
  int a;        // d + 2
  int matrix;   // packed, of y
  int moments;  // packed, of a
};
SCDR_SHARED PosteriorWidths posterior_widths(int d) {
  return {d + 1, d + 2, (d + 1) * (d + 2) / 2, (d + 2) * (d + 3) / 2};
}

// Columns of a pack of rows: column k lies at k * Pack::width.
template <class Pack>
SCDR_INLINE Pack column_at(const float* columns, int k) {
  return Pack::load(columns + k * Pack::width);
}
template <class Pack>
SCDR_INLINE void put_column(float* columns, int k, Pack x) {
  store(columns + k * Pack::width, x);
}

// -matrix^-1 in place of a positive definite matrix, packed, by the sweep operator. room: one row.
template <class Pack>
SCDR_INLINE void negative_inverse(int rows, float* matrix, float* room) {
  for (int k = 0; k < rows; ++k) {
    const Pack pivot = Pack::all(1.0f) / column_at<Pack>(matrix, packed_at(rows, k, k));
    for (int j = 0; j < rows; ++j)
      put_column(room, j,
                 column_at<Pack>(matrix, j < k ? packed_at(rows, j, k) : packed_at(rows, k, j)));
    for (int i = 0; i < rows; ++i) {
      const Pack share = column_at<Pack>(room, i) * pivot;
      if (i == k) continue;
      float* const row = matrix + packed_at(rows, i, i) * Pack::width;
      for (int j = i; j < rows; ++j)
        put_column(row, j - i, column_at<Pack>(row, j - i) - share * column_at<Pack>(room, j));
      put_column(matrix, i < k ? packed_at(rows, i, k) : packed_at(rows, k, i), share);
    }
    put_column(matrix, packed_at(rows, k, k), -pivot);
  }
}

// What a pack of rows works in, all in columns.
struct PosteriorColumns {
  float* moments;  // sum E[a a'], packed; then E[a a'] of the rows themselves
  float* first;    // sum r E[a]
  float* matrix;   // P, packed; then E[y y']
  float* right;    // P m; then the right side
  float* mean;     // E[y]
  float* room;     // one row of y
};

// Turns the sums over ratings into the moments of the rows. Returns the expected squared errors of
// their ratings, less the sum of r^2.
template <class Pack>
SCDR_INLINE Pack factor_posterior(int d, float inverse_noise, const PosteriorColumns& in) {
  const PosteriorWidths width = posterior_widths(d);
  const Pack weight = Pack::all(inverse_noise);
  const auto sum_at = [&](int i, int j) {
    return column_at<Pack>(in.moments, packed_at(width.a, i, j));
  };
  const auto phi = [](int k) { return k == 0 ? 0 : k + 1; };  // its place in a
  const auto linear = [&](int k) {
    return column_at<Pack>(in.first, phi(k)) - (k == 0 ? sum_at(0, 1) : sum_at(1, phi(k)));
  };
  for (int i = 0; i < width.y; ++i) {
    for (int j = i; j < width.y; ++j) {
      const int at = packed_at(width.y, i, j);
      put_column(in.matrix, at, weight * sum_at(phi(i), phi(j)) + column_at<Pack>(in.matrix, at));
    }
    put_column(in.right, i, weight * linear(i) + column_at<Pack>(in.right, i));
  }
  negative_inverse<Pack>(width.y, in.matrix, in.room);
  for (int i = 0; i < width.y; ++i) {
    Pack mean = Pack::all(0.0f);
    for (int j = 0; j < width.y; ++j) {
      const int at = i < j ? packed_at(width.y, i, j) : packed_at(width.y, j, i);
      mean = mean - column_at<Pack>(in.matrix, at) * column_at<Pack>(in.right, j);
    }
    put_column(in.mean, i, mean);
  }
  // E[(b + <phi, y>)^2 - 2 r (b + <phi, y>)] over the ratings.
  Pack error = sum_at(1, 1) - Pack::all(2.0f) * column_at<Pack>(in.first, 1);
  for (int i = 0; i < width.y; ++i) {
    const Pack mean = column_at<Pack>(in.mean, i);
    error = error - Pack::all(2.0f) * linear(i) * mean;
    for (int j = i; j < width.y; ++j) {
      const int at = packed_at(width.y, i, j);
      const Pack second = mean * column_at<Pack>(in.mean, j) - column_at<Pack>(in.matrix, at);
      put_column(in.matrix, at, second);
      error = error + Pack::all(i == j ? 1.0f : 2.0f) * sum_at(phi(i), phi(j)) * second;
    }
  }
  put_column(in.moments, 0, Pack::all(1.0f));
  for (int i = 0; i < width.y; ++i) put_column(in.moments, 1 + i, column_at<Pack>(in.mean, i));
  for (int k = 0; k < width.matrix; ++k)
    put_column(in.moments, width.a + k, column_at<Pack>(in.matrix, k));
  return error;
}

}  // namespace scdr
