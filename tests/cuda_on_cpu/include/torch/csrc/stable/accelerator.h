// The guard for tensors on the CPU.
#pragma once

#include <cstdint>

namespace torch::stable::accelerator {

using DeviceIndex = std::int32_t;

struct DeviceGuard {
  explicit DeviceGuard(DeviceIndex) {}
};

}  // namespace torch::stable::accelerator
