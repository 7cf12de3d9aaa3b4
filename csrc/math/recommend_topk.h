// The best items of a user: scores, and the order that they are ranked in.
//
// A score is offset + u[0] v[0] + u[1] v[1] + ..., added from left to right in float32, each
// product rounded before it is added. No multiply is fused with an add, so it has the same bits on
// every SIMD level and on CUDA. A pack holds the same column of Pack::width items, side by side.
#pragma once

#include <cstdint>

#include "math/inline.h"

namespace scdr {

constexpr int kMostTopkWidth = 256;  // of a user or item vector

// Score and item in one number: the larger the better. A higher score is better, and of equal
// scores that of the lower item. The score is finite, and 0 has no sign.
SCDR_SHARED std::uint64_t topk_key(float score, std::int32_t item) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &score, sizeof(bits));
  const std::uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<std::uint64_t>(ordered) << 32) | ~static_cast<std::uint32_t>(item);
}

SCDR_SHARED std::int32_t topk_item(std::uint64_t key) {
  return static_cast<std::int32_t>(~static_cast<std::uint32_t>(key));
}

SCDR_SHARED float topk_score(std::uint64_t key) {
  const auto ordered = static_cast<std::uint32_t>(key >> 32);
  const std::uint32_t bits = ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered;
  float score;
  __builtin_memcpy(&score, &bits, sizeof(score));
  return score;
}

// Adds the products of U user vectors and V packs of items to score. Column k of the items is at
// items + k * stride.
template <class Pack, int U, int V>
SCDR_INLINE void topk_add_products(const float* const* user, const float* items, int stride, int d,
                                   Pack (*score)[V]) {
  for (int k = 0; k < d; ++k) {
    Pack item[V];
    SCDR_UNROLL_KNOWN
    for (int v = 0; v < V; ++v) item[v] = Pack::load(items + k * stride + v * Pack::width);
    SCDR_UNROLL_KNOWN
    for (int u = 0; u < U; ++u) {
      const Pack factor = Pack::all(user[u][k]);
      SCDR_UNROLL_KNOWN
      for (int v = 0; v < V; ++v) score[u][v] = score[u][v] + factor * item[v];
    }
  }
}

}  // namespace scdr
