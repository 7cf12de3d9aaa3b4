// factor_posteriors_ on the CPU: checks and threads. The arithmetic of a row is in math/, the loop
// over rows in factor_posteriors_level.cpp.
#include "cpu/factor_posteriors.h"

#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <optional>

#include "check.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/threads.h"

namespace scdr {
namespace {

constexpr const char* kOp = "factor_posteriors_";
// Rows whose errors are added up together, whatever the threads; a multiple of every pack.
constexpr std::int64_t kBlock = 512;

PosteriorKernel* pick_kernel() {
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return avx512::posterior_kernel;
    case SimdLevel::avx2:
      return avx2::posterior_kernel;
#endif
    default:
      return scalar::posterior_kernel;
  }
}

template <class Index>
bool all_inside(const Index* values, std::int64_t count, std::int64_t size) {
  return all_ranges(count, 1 << 18, true, [&](std::int64_t begin, std::int64_t end) {
    bool inside = true;
    for (std::int64_t i = begin; i < end; ++i) inside &= values[i] >= 0 && values[i] < size;
    return inside;
  });
}

void check_rows(const FactorPosteriors& call, std::int64_t rows, std::int64_t others,
                std::int64_t groups) {
  bool rising = call.start[0] == 0 && call.start[rows] == call.n_ratings;
  for (std::int64_t row = 0; row < rows; ++row) rising &= call.start[row] <= call.start[row + 1];
  check(rising, kOp, "start", "must begin at 0, never fall, and end at the number of ratings");
  check(all_inside(call.others, call.n_ratings, others), kOp, "others",
        "holds an index outside [0, ", others, ")");
  check(all_inside(call.group, rows, groups), kOp, "group", "holds an index outside [0, ", groups,
        ")");
}

Tensor factor_posteriors_on_cpu(Tensor moments, Tensor start, Tensor others, Tensor ratings,
                                Tensor other_moments, Tensor precision, Tensor group,
                                std::optional<Tensor> prior_mean, double noise) {
  constexpr auto f32 = ScalarType::Float;
  check(moments.dim() == 2, kOp, "moments", "must have 2 dimensions, not ", moments.dim());
  check(other_moments.dim() == 2, kOp, "other_moments", "must have 2 dimensions, not ",
        other_moments.dim());
  check(precision.dim() == 3, kOp, "precision", "must have 3 dimensions, not ", precision.dim());
  check(others.dim() == 1, kOp, "others", "must have 1 dimension, not ", others.dim());
  check(std::isfinite(noise) && noise > 0.0, kOp, "noise", "must be finite and positive, not ",
        noise);
  const std::int64_t y = precision.size(1), groups = precision.size(0);
  check(y >= 1 && y <= kMostPosteriorWidth + 1, kOp, "precision", "must have 1 to ",
        kMostPosteriorWidth + 1, " rows, not ", y);
  const int d = static_cast<int>(y - 1);
  const std::int64_t rows = moments.size(0), n = others.size(0),
                     width = posterior_widths(d).moments;
  check_tensor(kOp, "moments", moments, f32, {rows, width}, moments);
  check_tensor(kOp, "start", start, ScalarType::Long, {rows + 1}, moments);
  check_tensor(kOp, "others", others, ScalarType::Int, {n}, moments);
  check_tensor(kOp, "ratings", ratings, f32, {n}, moments);
  check_tensor(kOp, "other_moments", other_moments, f32, {other_moments.size(0), width}, moments);
  check_tensor(kOp, "precision", precision, f32, {groups, y, y}, moments);
  check_tensor(kOp, "group", group, ScalarType::Long, {rows}, moments);
  if (prior_mean) check_tensor(kOp, "prior_mean", *prior_mean, f32, {rows, y}, moments);
  const FactorPosteriors call{
      .moments = moments.mutable_data_ptr<float>(),
      .start = start.const_data_ptr<std::int64_t>(),
      .others = others.const_data_ptr<std::int32_t>(),
      .ratings = ratings.const_data_ptr<float>(),
      .n_ratings = n,
      .other_moments = other_moments.const_data_ptr<float>(),
      .precision = precision.const_data_ptr<float>(),
      .group = group.const_data_ptr<std::int64_t>(),
      .prior_mean = prior_mean ? prior_mean->const_data_ptr<float>() : nullptr,
      .inverse_noise = static_cast<float>(1.0 / noise),
      .d = d};
  check_rows(call, rows, other_moments.size(0), groups);

  PosteriorKernel* const kernel = pick_kernel();
  const double error =
      sum_blocks(0, rows, kBlock, kBlock, true, [&](std::int64_t begin, std::int64_t end) {
        Scratch<float> scratch(posterior_scratch(d));
        return kernel(call, begin, end, scratch.data());
      });
  check(std::isfinite(error), kOp, "other_moments",
        "or another argument holds a value that is not finite, or too large");
  Tensor result = torch::stable::new_empty(moments, {}, ScalarType::Double);
  *result.mutable_data_ptr<double>() = error;
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("factor_posteriors_", TORCH_BOX(&scdr::factor_posteriors_on_cpu));
}
