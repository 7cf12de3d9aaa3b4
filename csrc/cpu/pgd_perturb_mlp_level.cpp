// The row kernels of pgd_perturb_mlp and tanh for one SIMD level.
#include "cpu/pgd_perturb_mlp.h"
#include "cpu/rows.h"

namespace scdr::SCDR_LEVEL {
namespace {

SCDR_INLINE int rows_from(std::int64_t at, std::int64_t end) {
  return end - at < RowPack::width ? static_cast<int>(end - at) : RowPack::width;
}

template <int D, int J>
void perturb(const PgdMlp& mlp, const PgdRows& rows, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; row += RowPack::width)
    pgd_perturb_mlp<RowPack, D, J>(mlp, rows, row, rows_from(row, end));
}

}  // namespace

PgdMlpKernel pgd_mlp_kernel(int d_source) {
#if defined(SCDR_LEVEL_AVX512)
  // 32 registers hold two columns of so many factors.
  if (d_source == 10) return perturb<10, 1>;
  if (d_source == 11) return perturb<11, 1>;
#else
  if (d_source == 10) return perturb<10, 4>;
  if (d_source == 11) return perturb<11, 4>;
#endif
  return perturb<0, 4>;
}

void tanh_kernel(const float* x, float* out, std::int64_t count) {
  for (std::int64_t at = 0; at < count; at += RowPack::width) {
    const int n = rows_from(at, count);
    store_column(out + at, 1, n, tanh(RowPack::column(x + at, 1, n)));
  }
}

}  // namespace scdr::SCDR_LEVEL
