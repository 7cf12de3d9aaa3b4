// Guards and streams for tensors on the CPU.
#pragma once

#include <cstdint>

namespace torch::stable::accelerator {

using DeviceIndex = std::int32_t;

struct DeviceGuard {
  explicit DeviceGuard(DeviceIndex) {}
};
struct Stream {
  void* nativeHandle() const { return nullptr; }
};
inline Stream getCurrentStream(DeviceIndex) { return {}; }

}  // namespace torch::stable::accelerator
