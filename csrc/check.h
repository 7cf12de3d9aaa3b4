// Checks of an op's arguments, shared by its CPU and CUDA sides. Each throws std::runtime_error,
// which torch hands to Python as RuntimeError, with the argument's name first.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

namespace scdr {

using torch::headeronly::DeviceType;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
void check(bool holds, const char* op, const char* name, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  message << op << ": " << name << ' ';
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Contiguous, of this dtype and shape, on the device of `like`.
inline void check_tensor(const char* op, const char* name, const Tensor& tensor, ScalarType dtype,
                         std::initializer_list<std::int64_t> shape, const Tensor& like) {
  check(tensor.scalar_type() == dtype, op, name, "must have dtype ",
        torch::headeronly::toString(dtype), ", not ",
        torch::headeronly::toString(tensor.scalar_type()));
  bool same = tensor.dim() == static_cast<std::int64_t>(shape.size());
  std::int64_t axis = 0;
  for (const std::int64_t size : shape) same = same && tensor.size(axis++) == size;
  if (!same) {  // putting strings together would take longer than a small op
    std::ostringstream wanted, found;
    for (const std::int64_t size : shape) wanted << (wanted.tellp() > 0 ? ", " : "") << size;
    for (axis = 0; axis < tensor.dim(); ++axis)
      found << (axis > 0 ? ", " : "") << tensor.size(axis);
    check(false, op, name, "must have shape [", wanted.str(), "], not [", found.str(), "]");
  }
  check(tensor.is_contiguous(), op, name, "must be contiguous");
  check(tensor.device() == like.device(), op, name, "must be on the same device as user");
}

inline void check_not_negative(const char* op, const char* name, double value) {
  check(std::isfinite(value) && value >= 0.0, op, name, "must be finite and not negative, not ",
        value);
}

}  // namespace scdr
