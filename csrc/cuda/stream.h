// The CUDA stream that torch's work on a device goes to.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>

namespace scdr::cuda {

// Looked up in the torch that is loaded: it is in libtorch_cuda, which a torch for the CPU does not
// have, and the stable ABI hands out a stream only from torch 2.13 on.
inline void* current_stream(int device) {
  using GetStream = std::int32_t (*)(std::int32_t device, void** stream);
  static const auto get = [] {
    void* torch = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return torch == nullptr
               ? nullptr
               : reinterpret_cast<GetStream>(dlsym(torch, "aoti_torch_get_current_cuda_stream"));
  }();
  void* stream = nullptr;
  if (get == nullptr || get(device, &stream) != 0)
    throw std::runtime_error("torch gives no CUDA stream");
  return stream;
}

}  // namespace scdr::cuda
