// pgd_perturb_mlp and tanh on the CPU: checks and threads. The arithmetic of a row is in math/, the
// loops over rows in pgd_perturb_mlp_level.cpp.
#include "cpu/pgd_perturb_mlp.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

#include "cpu/finite.h"
#include "cpu/simd.h"
#include "pgd_perturb_mlp_request.h"

namespace scdr {
namespace {

// Threads take rows by as many as the widest pack holds.
constexpr std::int64_t kGroup = 16;
constexpr std::int64_t kTanhGrain = 1 << 14;

struct Kernels {
  PgdMlpKernel* pgd;
  TanhKernel* tanh;
};

Kernels pick_kernels() {
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return {avx512::pgd_mlp_kernel, avx512::tanh_kernel};
    case SimdLevel::avx2:
      return {avx2::pgd_mlp_kernel, avx2::tanh_kernel};
#endif
    default:
      return {scalar::pgd_mlp_kernel, scalar::tanh_kernel};
  }
}

Tensor run_on_cpu(const PgdMlpRequest& request) {
  Tensor delta = torch::stable::empty_like(request.user);
  const PgdRows rows{
      .user = request.user.const_data_ptr<float>(),
      .item = request.item.const_data_ptr<float>(),
      .rating = request.rating.const_data_ptr<float>(),
      .delta = delta.mutable_data_ptr<float>(),
  };
  const RowsToCheck checked{rows.user, rows.item, rows.rating, request.mlp.d_source,
                            request.mlp.d_target};
  PgdMlpKernel* kernel = pick_kernels().pgd;
  std::atomic<unsigned> wrong{0};
  const std::int64_t groups = (request.rows + kGroup - 1) / kGroup;
  torch::stable::parallel_for(
      0, groups, rows_worth_thread(request.mlp) / kGroup + 1,
      [&](std::int64_t first, std::int64_t last) {
        const std::int64_t begin = first * kGroup, end = std::min(last * kGroup, request.rows);
        if (const unsigned found = find_wrong(checked, begin, end); found != 0)
          wrong.fetch_or(found, std::memory_order_relaxed);
        else
          kernel(request.mlp, rows, begin, end);
      });
  throw_if_not_finite(kPgdPerturbMlp, wrong.load());
  return delta;
}

Tensor tanh_on_cpu(Tensor x) {
  check_tanh(x);
  Tensor result = torch::stable::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  TanhKernel* kernel = pick_kernels().tanh;
  torch::stable::parallel_for(0, x.numel(), kTanhGrain, [&](std::int64_t begin, std::int64_t end) {
    kernel(from + begin, to + begin, end - begin);
  });
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("pgd_perturb_mlp", TORCH_BOX(&scdr::pgd_perturb_mlp<scdr::run_on_cpu>));
  m.impl("tanh", TORCH_BOX(&scdr::tanh_on_cpu));
}
