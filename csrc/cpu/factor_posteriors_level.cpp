// The rows of factor_posteriors_ for one SIMD level.
#include "cpu/factor_posteriors.h"

#include "cpu/rows.h"

namespace scdr::SCDR_LEVEL {
namespace {

constexpr std::int64_t kAhead = 12;  // ratings between asking for an other's moments and their use
constexpr int kLine = 16;            // floats

// Sums over the ratings of a row: E[a a'] into second, r E[a] into first; returns that of r^2.
float sum_ratings(const FactorPosteriors& call, std::int64_t row, float* __restrict second,
                  float* __restrict first) {
  const PosteriorWidths width = posterior_widths(call.d);
  for (int k = 0; k < width.moments; ++k) second[k] = 0.0f;
  for (int k = 0; k < width.a; ++k) first[k] = 0.0f;
  const auto moments_of = [&](std::int64_t n) {
    return call.other_moments + std::int64_t{call.others[n]} * width.moments;
  };
  float squares = 0.0f;
  const std::int64_t last = call.start[row + 1];
  for (std::int64_t n = call.start[row]; n < last; ++n) {
    if (n + kAhead < call.n_ratings) {
      const float* const later = moments_of(n + kAhead);
      for (int k = 0; k < width.moments; k += kLine) __builtin_prefetch(later + k);
    }
    const float* const a = moments_of(n);
    const float rating = call.ratings[n];
    for (int k = 0; k < width.moments; ++k) second[k] += a[k];
    for (int k = 0; k < width.a; ++k) first[k] += rating * a[k];
    squares += rating * rating;
  }
  return squares;
}

// The prior of some rows: P in columns, packed, and P m.
void read_priors(const FactorPosteriors& call, std::int64_t row, int count, float* matrix,
                 float* right) {
  const int y = posterior_widths(call.d).y;
  for (int lane = 0; lane < RowPack::width; ++lane) {
    const std::int64_t own = row + (lane < count ? lane : 0);  // a pack is filled with the first
    const float* const precision = call.precision + call.group[own] * y * y;
    for (int i = 0; i < y; ++i) {
      for (int j = i; j < y; ++j)
        matrix[packed_at(y, i, j) * RowPack::width + lane] = precision[i * y + j];
      float sum = 0.0f;
      if (call.prior_mean != nullptr)
        for (int j = 0; j < y; ++j) sum += precision[i * y + j] * call.prior_mean[own * y + j];
      right[i * RowPack::width + lane] = sum;
    }
  }
}

}  // namespace

double posterior_kernel(const FactorPosteriors& call, std::int64_t begin, std::int64_t end,
                        float* scratch) {
  const PosteriorWidths width = posterior_widths(call.d);
  const auto take = [&](int columns) {
    float* const at = scratch;
    scratch += columns * RowPack::width;
    return at;
  };
  const PosteriorColumns columns{.moments = take(width.moments),
                                 .first = take(width.a),
                                 .matrix = take(width.matrix),
                                 .right = take(width.y),
                                 .mean = take(width.y),
                                 .room = take(width.y)};
  float* const second = take(width.moments);  // the same sums row by row
  float* const first = take(width.a);
  float* const squares = take(1);
  double total = 0.0;
  for (std::int64_t row = begin; row < end; row += RowPack::width) {
    const int count = end - row < RowPack::width ? static_cast<int>(end - row) : RowPack::width;
    for (int lane = 0; lane < count; ++lane)
      squares[lane] =
          sum_ratings(call, row + lane, second + lane * width.moments, first + lane * width.a);
    for (int k = 0; k < width.moments; ++k)
      put_column(columns.moments, k, RowPack::column(second + k, width.moments, count));
    for (int k = 0; k < width.a; ++k)
      put_column(columns.first, k, RowPack::column(first + k, width.a, count));
    read_priors(call, row, count, columns.matrix, columns.right);
    const RowPack error = factor_posterior<RowPack>(call.d, call.inverse_noise, columns);
    for (int k = 0; k < width.moments; ++k)
      store_column(call.moments + row * width.moments + k, width.moments, count,
                   column_at<RowPack>(columns.moments, k));
    for (int lane = 0; lane < count; ++lane)
      total += static_cast<double>(error.x[lane]) + static_cast<double>(squares[lane]);
  }
  return total;
}

}  // namespace scdr::SCDR_LEVEL
