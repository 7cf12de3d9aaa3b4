// The stream for tensors on the CPU.
#pragma once

namespace scdr::cuda {

inline void* current_stream(int) { return nullptr; }

}  // namespace scdr::cuda
