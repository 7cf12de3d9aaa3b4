// Sorting by torch.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <utility>

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // torch 2.11 has the plainer one alone
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace scdr {

// Values and indices of a stable ascending sort.
inline std::pair<torch::stable::Tensor, torch::stable::Tensor> stable_sort(
    const torch::stable::Tensor& keys) {
  using torch::stable::Tensor;
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(keys), from(std::optional<bool>(true)),
                                    from(std::int64_t{-1}), from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

}  // namespace scdr
