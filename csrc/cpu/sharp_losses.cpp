// The sharp losses and their gradients on the CPU: threads. The arithmetic of a row is
// in math/, the loops over rows in sharp_losses_level.cpp; the gradient over the mapping is
// computed by the kernels of mapping_sgd_epoch_.
#include "cpu/sharp_losses.h"

#include <torch/csrc/stable/ops.h>

#include <array>
#include <atomic>

#include "cpu/block_sums.h"
#include "cpu/finite.h"
#include "cpu/mapping_sgd_epoch.h"
#include "cpu/simd.h"
#include "sharp_losses_request.h"

namespace scdr {
namespace {

// A thread is worth waking for so many multiply-adds, of the order of 10 microseconds.
constexpr std::int64_t kWorthThread = 500'000;

SharpKernels pick_kernels() {
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return avx512::sharp_kernels();
    case SimdLevel::avx2:
      return avx2::sharp_kernels();
#endif
    default:
      return scalar::sharp_kernels();
  }
}

// Does work(begin, end) over the rows where all three are finite, and names the first of them that
// is not.
template <class Work>
void over_finite_rows(const char* op, const RowsToCheck& rows, std::int64_t count,
                      std::int64_t grain, const Work& work) {
  std::atomic<unsigned> wrong{0};
  torch::stable::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    if (const unsigned found = find_wrong(rows, begin, end); found != 0)
      wrong.fetch_or(found, std::memory_order_relaxed);
    else
      work(begin, end);
  });
  throw_if_not_finite(op, wrong.load());
}

void mf_on_cpu(const SharpMfRequest& request) {
  const SharpMfRows& rows = request.rows;
  const SharpKernels kernels = pick_kernels();
  over_finite_rows(kSharpMf, {rows.user, rows.item, rows.rating, rows.d, rows.d}, request.count,
                   kWorthThread / (8 * rows.d) + 1, [&](std::int64_t begin, std::int64_t end) {
                     kernels.mf(rows, request.settings, request.inner, begin, end);
                   });
}

void mf_backward_on_cpu(const SharpMfBackwardRequest& request) {
  const SharpKernels kernels = pick_kernels();
  torch::stable::parallel_for(0, request.count, kWorthThread / (8 * request.rows.d) + 1,
                              [&](std::int64_t begin, std::int64_t end) {
                                kernels.mf_gradient(request.rows, request.inner, begin, end);
                              });
}

void mapping_on_cpu(const SharpMappingRequest& request) {
  const SharpRows& rows = request.rows;
  const PgdMlp& mlp = request.mlp;
  const SharpKernels kernels = pick_kernels();
  over_finite_rows(
      kSharpMapping, {rows.user, rows.item, rows.rating, mlp.d_source, mlp.d_target}, request.count,
      rows_worth_thread(mlp),
      [&](std::int64_t begin, std::int64_t end) { kernels.mapping(mlp, rows, begin, end); });
}

void mapping_backward_on_cpu(const SharpMappingBackwardRequest& request) {
  const PgdMlp& mlp = request.mlp;
  const SharpGradients& rows = request.rows;
  const MappingKernel kernel = pick_mapping_kernel();
  BlockSums sums(request.count, kMappingRows, kernel.size_of_sums(mlp));
  const float* total = sums.run(
      request.count, rows_worth_thread(mlp), [&](std::int64_t at, std::int64_t end, float* to) {
        std::array<MappingVisit, kMappingRows> visits;
        for (std::int32_t i = 0; i < end - at; ++i)
          visits[static_cast<std::size_t>(i)] = {i, i, rows.rating[at + i]};
        kernel.compute(
            mlp,
            {.user = rows.moved + at * mlp.d_source,
             .item = rows.item + at * mlp.d_target,
             .visits = visits.data(),
             .count = static_cast<int>(end - at),
             .scale = 2.0f,
             .weight = rows.loss + at},
            {.error = rows.over_rating + at,
             .user = rows.over_user + at * mlp.d_source,
             .item = rows.over_item != nullptr ? rows.over_item + at * mlp.d_target : nullptr,
             .sums = to});
        for (std::int64_t i = at; i < end; ++i) rows.over_rating[i] *= -2.0f * rows.loss[i];
      });
  const auto& over = request.over_mapping;
  kernel.unpack(mlp, total, {over[0], over[1], over[2], over[3]});
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("sharp_mf_loss", TORCH_BOX(&scdr::sharp_mf_loss<scdr::mf_on_cpu>));
  m.impl("sharp_mf_loss_backward",
         TORCH_BOX(&scdr::sharp_mf_loss_backward<scdr::mf_backward_on_cpu>));
  m.impl("sharp_mapping_loss", TORCH_BOX(&scdr::sharp_mapping_loss<scdr::mapping_on_cpu>));
  m.impl("sharp_mapping_loss_backward",
         TORCH_BOX(&scdr::sharp_mapping_loss_backward<scdr::mapping_backward_on_cpu>));
}
