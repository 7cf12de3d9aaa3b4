// The row kernels of pgd_perturb_mlp and tanh for one SIMD level.
#include "cpu/pgd_perturb_mlp.h"
#include "cpu/rows.h"

namespace scdr::SCDR_LEVEL {
namespace {

SCDR_INLINE int rows_from(std::int64_t at, std::int64_t end) {
  return end - at < RowPack::width ? static_cast<int>(end - at) : RowPack::width;
}

}  // namespace

void pgd_mlp_kernel(const PgdMlp& mlp, const PgdRows& rows, std::int64_t begin, std::int64_t end) {
  // So many hidden units at a time that their sums fill the registers. Loops over a known number of
  // factors are no faster then.
  constexpr int together = RowPack::width > 4 ? 10 : 8;
  for (std::int64_t row = begin; row < end; row += RowPack::width)
    pgd_perturb_mlp<RowPack, 0, together>(mlp, rows, row, rows_from(row, end));
}

void tanh_kernel(const float* x, float* out, std::int64_t count) {
  for (std::int64_t at = 0; at < count; at += RowPack::width) {
    const int n = rows_from(at, count);
    store_column(out + at, 1, n, tanh(RowPack::column(x + at, 1, n)));
  }
}

}  // namespace scdr::SCDR_LEVEL
