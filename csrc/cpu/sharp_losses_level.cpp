// The row kernels of the sharp losses for one SIMD level.
#include "cpu/pack.h"
#include "cpu/rows.h"
#include "cpu/sharp_losses.h"

namespace scdr::SCDR_LEVEL {
namespace {

using Pack = PackFor<0>;

template <Inner inner>
void mf_as(const SharpMfRows& rows, const MfSettings& settings, std::int64_t begin,
           std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row)
    keep_sharp_mf_loss(rows, row, sharp_mf_error<Pack, inner>(rows, settings, row));
}

template <Inner inner>
void mf_gradient_as(const SharpMfGradients& rows, std::int64_t begin, std::int64_t end) {
  float room[2][kMostPgdWidth + Pack::width];
  for (std::int64_t row = begin; row < end; ++row) {
    sharp_mf_gradient<Pack, inner>(rows, row, room[0], room[1]);
    const std::int64_t at = row * rows.d;
    for (int k = 0; k < rows.d; k += Pack::width) {
      store(rows.over_user + at + k, rows.d - k, Pack::load(room[0] + k, rows.d - k));
      store(rows.over_item + at + k, rows.d - k, Pack::load(room[1] + k, rows.d - k));
    }
    keep_sharp_mf_over_rating(rows, row);
  }
}

void mf(const SharpMfRows& rows, const MfSettings& settings, Inner inner, std::int64_t begin,
        std::int64_t end) {
  switch (inner) {
    case Inner::none:
      return mf_as<Inner::none>(rows, settings, begin, end);
    case Inner::pgd:
      return mf_as<Inner::pgd>(rows, settings, begin, end);
    case Inner::exact:
      return mf_as<Inner::exact>(rows, settings, begin, end);
  }
}

void mf_gradient(const SharpMfGradients& rows, Inner inner, std::int64_t begin, std::int64_t end) {
  switch (inner) {
    case Inner::none:
      return mf_gradient_as<Inner::none>(rows, begin, end);
    case Inner::pgd:
      return mf_gradient_as<Inner::pgd>(rows, begin, end);
    case Inner::exact:
      return mf_gradient_as<Inner::exact>(rows, begin, end);
  }
}

void mapping(const PgdMlp& mlp, const SharpRows& rows, std::int64_t begin, std::int64_t end) {
  constexpr int together = RowPack::width > 4 ? 10 : 8;  // as in pgd_mlp_kernel
  for (std::int64_t row = begin; row < end; row += RowPack::width) {
    const std::int64_t left = end - row;
    sharp_mapping_loss<RowPack, 0, together>(
        mlp, rows, row, left < RowPack::width ? static_cast<int>(left) : RowPack::width);
  }
}

}  // namespace

SharpKernels sharp_kernels() { return {mf, mf_gradient, mapping}; }

}  // namespace scdr::SCDR_LEVEL
