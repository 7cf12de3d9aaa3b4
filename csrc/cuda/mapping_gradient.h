// The gradient over the mapping, summed over rows in one order: rows are computed by tiles, sums
// are over chunks of a tile, then over those sums. What the torch side knows of it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "math/pgd_perturb_mlp.h"

namespace scdr::cuda {

constexpr int kTileRows = 16384, kChunkRows = 256;

// What the gradient over the mapping is made of, and room for it.
struct MappingGradient {
  float* unit;         // [tile, hidden] c (1 - h^2)
  float* moved;        // [tile, d_source + 1] g x, g
  float* scaled_item;  // [tile, d_target] g v
  float* activation;   // [tile, hidden + 1] h, 1
  float* partial;      // [chunks of a tile, size]
  float* gradient;     // [size] w1, b1, w2, b2 one after the other
  std::int64_t part_begin[5];

  SCDR_SHARED std::int64_t size() const { return part_begin[4]; }
};

// The rows from number `from` on, `count` of them.
struct Tile {
  std::int64_t from;
  int count;

  SCDR_SHARED int chunks() const { return (count + kChunkRows - 1) / kChunkRows; }
};

SCDR_SHARED Tile tile_of(std::int64_t rows, std::int64_t from) {
  const std::int64_t left = rows - from;
  return {from, static_cast<int>(left < kTileRows ? left : kTileRows)};
}

// Of so many rows; floats(count) gives memory of the device.
template <class Floats>
MappingGradient mapping_gradient(const PgdMlp& mlp, std::int64_t rows, const Floats& floats) {
  const std::int64_t tile = std::min<std::int64_t>(rows, kTileRows);
  MappingGradient to{.unit = floats(tile * mlp.hidden),
                     .moved = floats(tile * (mlp.d_source + 1)),
                     .scaled_item = floats(tile * mlp.d_target),
                     .activation = floats(tile * (mlp.hidden + 1)),
                     .partial = nullptr,
                     .gradient = nullptr,
                     .part_begin = {}};
  const std::int64_t counts[4] = {
      std::int64_t{mlp.hidden} * mlp.d_source, mlp.b1 != nullptr ? mlp.hidden : 0,
      std::int64_t{mlp.d_target} * mlp.hidden, mlp.b2 != nullptr ? mlp.d_target : 0};
  for (int part = 0; part < 4; ++part) to.part_begin[part + 1] = to.part_begin[part] + counts[part];
  to.partial = floats((tile + kChunkRows - 1) / kChunkRows * to.size());
  to.gradient = floats(to.size());
  return to;
}

}  // namespace scdr::cuda
