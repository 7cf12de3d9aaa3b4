#include "cpu/simd.h"

#include <cstdlib>
#include <stdexcept>

namespace scdr {
namespace {

#if defined(__x86_64__)
constexpr SimdLevel kCompiled[] = {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512};
#else
constexpr SimdLevel kCompiled[] = {SimdLevel::scalar};
#endif

bool processor_has(SimdLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case SimdLevel::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("fma");
    case SimdLevel::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case SimdLevel::scalar:
      break;
  }
#endif
  return level == SimdLevel::scalar;
}

SimdLevel choose() {
  const char* wanted = std::getenv("SCDR_SIMD");
  SimdLevel best = SimdLevel::scalar;
  std::string available;
  for (const SimdLevel level : kCompiled) {
    if (!processor_has(level)) continue;
    best = level;
    available += (available.empty() ? "" : ", ") + std::string(simd_name(level));
    if (wanted != nullptr && simd_name(level) == std::string(wanted)) return level;
  }
  if (wanted == nullptr || *wanted == '\0') return best;
  throw std::runtime_error("SCDR_SIMD=" + std::string(wanted) +
                           ": no such SIMD level here; available: " + available);
}

}  // namespace

SimdLevel simd_level() {
  static const SimdLevel level = choose();
  return level;
}

const char* simd_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::scalar:
      break;
  }
  return "scalar";
}

std::vector<std::string> simd_compiled() {
  std::vector<std::string> names;
  for (const SimdLevel level : kCompiled) names.emplace_back(simd_name(level));
  return names;
}

}  // namespace scdr
