// Which SIMD level the CPU kernels run at.
#pragma once

#include <string>
#include <vector>

namespace scdr {

enum class SimdLevel { scalar, avx2, avx512 };

// The best compiled level that this processor has, or the one named by the environment variable
// SCDR_SIMD. Throws std::runtime_error where that name is unknown or not available here. Decided
// once a process.
SimdLevel simd_level();

const char* simd_name(SimdLevel level);

// Names of the levels in this library, lowest first.
std::vector<std::string> simd_compiled();

}  // namespace scdr
