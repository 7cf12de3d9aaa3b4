// The sharp losses and their gradients on the CPU: checks and threads. The arithmetic of a row is
// in math/, the loops over rows in sharp_losses_level.cpp; the gradient over the mapping is
// computed by the kernels of mapping_sgd_epoch_.
#include "cpu/sharp_losses.h"

#include <torch/csrc/stable/ops.h>

#include <array>
#include <atomic>
#include <cmath>
#include <string>
#include <tuple>

#include "cpu/block_sums.h"
#include "cpu/finite.h"
#include "cpu/mapping_sgd_epoch.h"
#include "cpu/simd.h"
#include "pgd_perturb_mlp_request.h"

namespace scdr {
namespace {

constexpr const char* kSharpMf = "sharp_mf_loss";
constexpr const char* kSharpMapping = "sharp_mapping_loss";
constexpr auto kFloat = ScalarType::Float;
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

Tensor vector_like(const Tensor& tensor, std::int64_t size) {
  return torch::stable::new_empty(tensor, {size});
}

// Does work(begin, end) over the rows where all three are finite, and names the first of them that
// is not.
template <class Work>
void over_finite_rows(const char* op, const Tensor& user, const Tensor& item, const Tensor& rating,
                      std::int64_t grain, const Work& work) {
  std::atomic<unsigned> wrong{0};
  torch::stable::parallel_for(0, rating.size(0), grain, [&](std::int64_t begin, std::int64_t end) {
    const auto finite = [&](const Tensor& tensor, std::int64_t width) {
      return all_finite(tensor.const_data_ptr<float>() + begin * width, (end - begin) * width);
    };
    const unsigned found = (finite(user, user.size(1)) ? 0u : kNotFiniteUser) |
                           (finite(item, item.size(1)) ? 0u : kNotFiniteItem) |
                           (finite(rating, 1) ? 0u : kNotFiniteRating);
    if (found != 0)
      wrong.fetch_or(found, std::memory_order_relaxed);
    else
      work(begin, end);
  });
  throw_if_not_finite(op, wrong.load());
}

Inner inner_of(const std::string& inner, std::int64_t steps, double radius) {
  check(inner == "pgd" || inner == "exact", kSharpMf, "inner",
        "must be \"pgd\" or \"exact\", not \"", inner, '"');
  if (steps == 0 || radius == 0.0) return Inner::none;
  return inner == "pgd" ? Inner::pgd : Inner::exact;
}

// Loss, error and along of math/sharp_mf_loss.h.
std::tuple<Tensor, Tensor, Tensor> sharp_mf_loss_on_cpu(Tensor user, Tensor item, Tensor rating,
                                                        std::int64_t steps, double step_size,
                                                        double radius, std::string inner_name) {
  const char* op = kSharpMf;
  check(steps >= 0, op, "steps", "must not be negative, not ", steps);
  check_not_negative(op, "step_size", step_size);
  check_not_negative(op, "radius", radius);
  check_width(op, "user", user, 1);
  const std::int64_t rows = user.size(0), d = user.size(1);
  check_tensor(op, "user", user, kFloat, {rows, d}, user);
  check_tensor(op, "item", item, kFloat, {rows, d}, user);
  check_tensor(op, "rating", rating, kFloat, {rows}, user);
  const Inner inner = inner_of(inner_name, steps, radius);

  Tensor loss = vector_like(user, rows), error = vector_like(user, rows);
  Tensor along = vector_like(user, rows);
  const SharpMfRows in{.user = user.const_data_ptr<float>(),
                       .item = item.const_data_ptr<float>(),
                       .rating = rating.const_data_ptr<float>(),
                       .error = error.mutable_data_ptr<float>(),
                       .along = along.mutable_data_ptr<float>(),
                       .loss = loss.mutable_data_ptr<float>(),
                       .d = static_cast<int>(d)};
  const auto reach = static_cast<float>(static_cast<double>(steps) * step_size);
  MfSettings settings{};
  settings.reach = reach;
  settings.radius = static_cast<float>(radius);
  settings.full_length = pgd_length(reach, settings.radius, std::sqrt(static_cast<float>(d)));
  const SharpKernels kernels = pick_kernels();
  over_finite_rows(
      op, user, item, rating, kWorthThread / (8 * d) + 1,
      [&](std::int64_t begin, std::int64_t end) { kernels.mf(in, settings, inner, begin, end); });
  return {loss, error, along};
}

// Gradients over user, item and rating.
std::tuple<Tensor, Tensor, Tensor> sharp_mf_loss_backward_on_cpu(Tensor grad, Tensor user,
                                                                 Tensor item, Tensor error,
                                                                 Tensor along, std::string inner) {
  const char* op = "sharp_mf_loss_backward";
  check_width(op, "user", user, 1);
  const std::int64_t rows = user.size(0), d = user.size(1);
  check_tensor(op, "user", user, kFloat, {rows, d}, user);
  check_tensor(op, "item", item, kFloat, {rows, d}, user);
  check_tensor(op, "grad", grad, kFloat, {rows}, user);
  check_tensor(op, "error", error, kFloat, {rows}, user);
  check_tensor(op, "along", along, kFloat, {rows}, user);
  Tensor over_user = torch::stable::empty_like(user), over_item = torch::stable::empty_like(item);
  Tensor over_rating = vector_like(user, rows);
  const SharpMfGradients in{.loss = grad.const_data_ptr<float>(),
                            .user = user.const_data_ptr<float>(),
                            .item = item.const_data_ptr<float>(),
                            .error = error.const_data_ptr<float>(),
                            .along = along.const_data_ptr<float>(),
                            .over_user = over_user.mutable_data_ptr<float>(),
                            .over_item = over_item.mutable_data_ptr<float>(),
                            .over_rating = over_rating.mutable_data_ptr<float>(),
                            .d = static_cast<int>(d)};
  const SharpKernels kernels = pick_kernels();
  const Inner kind = inner_of(inner, 1, 1.0);  // along is 0 where nothing was perturbed
  torch::stable::parallel_for(
      0, rows, kWorthThread / (8 * d) + 1,
      [&](std::int64_t begin, std::int64_t end) { kernels.mf_gradient(in, kind, begin, end); });
  return {over_user, over_item, over_rating};
}

// Loss [B] and perturbed user vectors [B, d_source].
std::tuple<Tensor, Tensor> sharp_mapping_loss_on_cpu(Tensor user, Tensor item, Tensor rating,
                                                     Tensor w1, std::optional<Tensor> b1, Tensor w2,
                                                     std::optional<Tensor> b2, std::int64_t steps,
                                                     double step_size, double radius) {
  const char* op = kSharpMapping;
  const PgdMlp mlp = check_mlp(op, user, item, w1, b1, w2, b2, steps, step_size, radius);
  const std::int64_t rows = user.size(0);
  check_tensor(op, "item", item, kFloat, {rows, item.size(1)}, user);
  check_tensor(op, "rating", rating, kFloat, {rows}, user);
  Tensor loss = vector_like(user, rows), moved = torch::stable::empty_like(user);
  const SharpRows in{.user = user.const_data_ptr<float>(),
                     .item = item.const_data_ptr<float>(),
                     .rating = rating.const_data_ptr<float>(),
                     .loss = loss.mutable_data_ptr<float>(),
                     .moved = moved.mutable_data_ptr<float>()};
  const SharpKernels kernels = pick_kernels();
  over_finite_rows(
      op, user, item, rating, rows_worth_thread(mlp),
      [&](std::int64_t begin, std::int64_t end) { kernels.mapping(mlp, in, begin, end); });
  return {loss, moved};
}

using Seven = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Gradients over user, item, rating, w1, b1, w2, b2; empty ones over what is not there, and over
// item unless it is asked for.
Seven sharp_mapping_loss_backward_on_cpu(Tensor grad, Tensor moved, Tensor item, Tensor rating,
                                         Tensor w1, std::optional<Tensor> b1, Tensor w2,
                                         std::optional<Tensor> b2, bool item_too) {
  const char* op = "sharp_mapping_loss_backward";
  const PgdMlp mlp = check_mlp(op, moved, item, w1, b1, w2, b2, 0, std::nullopt, 0.0);
  const std::int64_t rows = moved.size(0), d_source = mlp.d_source, d_target = mlp.d_target;
  check_tensor(op, "item", item, kFloat, {rows, d_target}, moved);
  check_tensor(op, "rating", rating, kFloat, {rows}, moved);
  check_tensor(op, "grad", grad, kFloat, {rows}, moved);
  Tensor over_user = torch::stable::empty_like(moved);
  Tensor over_item = item_too ? torch::stable::empty_like(item) : vector_like(item, 0);
  Tensor over_rating = vector_like(rating, rows);
  Tensor over_w1 = torch::stable::empty_like(w1), over_w2 = torch::stable::empty_like(w2);
  Tensor over_b1 = vector_like(w1, b1 ? mlp.hidden : 0);
  Tensor over_b2 = vector_like(w2, b2 ? d_target : 0);

  const float* from = moved.const_data_ptr<float>();
  const float* v = item.const_data_ptr<float>();
  const float* r = rating.const_data_ptr<float>();
  const float* over_loss = grad.const_data_ptr<float>();
  float* user_out = over_user.mutable_data_ptr<float>();
  float* item_out = item_too ? over_item.mutable_data_ptr<float>() : nullptr;
  float* rating_out = over_rating.mutable_data_ptr<float>();
  const MappingKernel kernel = pick_mapping_kernel();
  BlockSums sums(rows, kMappingRows, kernel.size_of_sums(mlp));
  const float* total =
      sums.run(rows, rows_worth_thread(mlp), [&](std::int64_t at, std::int64_t end, float* to) {
        std::array<MappingVisit, kMappingRows> visits;
        for (std::int32_t i = 0; i < end - at; ++i)
          visits[static_cast<std::size_t>(i)] = {i, i, r[at + i]};
        kernel.compute(mlp,
                       {.user = from + at * d_source,
                        .item = v + at * d_target,
                        .visits = visits.data(),
                        .count = static_cast<int>(end - at),
                        .scale = 2.0f,
                        .weight = over_loss + at},
                       {.error = rating_out + at,
                        .user = user_out + at * d_source,
                        .item = item_too ? item_out + at * d_target : nullptr,
                        .sums = to});
        for (std::int64_t i = at; i < end; ++i) rating_out[i] *= -2.0f * over_loss[i];
      });
  kernel.unpack(
      mlp, total,
      {over_w1.mutable_data_ptr<float>(), b1 ? over_b1.mutable_data_ptr<float>() : nullptr,
       over_w2.mutable_data_ptr<float>(), b2 ? over_b2.mutable_data_ptr<float>() : nullptr});
  return {over_user, over_item, over_rating, over_w1, over_b1, over_w2, over_b2};
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("sharp_mf_loss", TORCH_BOX(&scdr::sharp_mf_loss_on_cpu));
  m.impl("sharp_mf_loss_backward", TORCH_BOX(&scdr::sharp_mf_loss_backward_on_cpu));
  m.impl("sharp_mapping_loss", TORCH_BOX(&scdr::sharp_mapping_loss_on_cpu));
  m.impl("sharp_mapping_loss_backward", TORCH_BOX(&scdr::sharp_mapping_loss_backward_on_cpu));
}
