// The ops of csrc/library.cpp and csrc/cuda/ in a namespace of their own, for tensors on the CPU.
#pragma once

#include_next <torch/csrc/stable/library.h>

#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(ns, m)                                                              \
  static void define_ops(torch::stable::detail::StableLibrary& m);                               \
  static const torch::stable::detail::StableTorchLibraryInit defined_ops(                        \
      torch::stable::detail::StableLibrary::Kind::DEF, &define_ops, "scdr_cuda_on_cpu", nullptr, \
      __FILE__, __LINE__);                                                                       \
  static void define_ops(torch::stable::detail::StableLibrary& m)

#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, k, m) \
  _STABLE_TORCH_LIBRARY_IMPL(scdr_cuda_on_cpu, CPU, m, C10_UID)
