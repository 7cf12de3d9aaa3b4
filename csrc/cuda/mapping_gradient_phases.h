// The phases in which the gradient over the mapping is computed.
#pragma once

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/mapping_gradient.h"
#include "cuda/row.h"
#include "math/mapping_sgd_epoch.h"

namespace scdr::cuda {

// The threads that share a phase of the work.
struct Team {
  std::int64_t thread, threads;
};

inline __device__ Team team_of_grid() { return {thread_of_grid(), threads_of_grid()}; }
inline __device__ Team team_of_block() {
  return {static_cast<std::int64_t>(threadIdx.x), static_cast<std::int64_t>(blockDim.x)};
}

constexpr int kGradientLanes = 2;  // that share a row

// Phase 1, some threads a row: at place `row` of the tile what the gradient of scale / 2 e^2 over
// the mapping is made of, and its gradient over the user vector. Returns e. Nothing is written
// where count is 0. D = d_source where it is known when compiling, else 0; J hidden units are
// worked on at a time.
template <int D, int J>
__device__ float compute_row(const PgdMlp& mlp, const MappingGradient& to, int row, int count,
                             const float* u, const float* v, float rating, float scale,
                             float* over_user) {
  using Pack = SharedRowPack<kGradientLanes>;
  constexpr int most = D > 0 ? D : kMostPgdWidth;
  const int n = D > 0 ? D : mlp.d_source, d_target = mlp.d_target, hidden = mlp.hidden;
  Pack user[most], x[most], delta[most], slope[most];
  Pack item[kMostPgdWidth], readout[kMostPgdWidth];
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) user[k] = {u[k]};
  for (int t = 0; t < d_target; ++t) item[t] = {v[t]};
  float* unit = to.unit + std::int64_t{row} * hidden;
  float* activation = to.activation + std::int64_t{row} * (hidden + 1);
  const float error =
      mapping_error<Pack, D, J>(mlp, user, item, Pack{rating}, readout, x, delta, slope,
                                [&](int j, const Pack& h, const Pack& c) {
                                  if (count == 0) return;
                                  activation[j] = h.x;
                                  unit[j] = c.x;
                                })
          .x;
  if (count == 0 || Pack::lane() != 0) return error;
  const float g = scale * error;
  activation[hidden] = 1.0f;
  float* moved = to.moved + std::int64_t{row} * (n + 1);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) {
    moved[k] = g * user[k].x;
    over_user[k] = g * slope[k].x;
  }
  moved[n] = g;
  for (int t = 0; t < d_target; ++t)
    to.scaled_item[std::int64_t{row} * d_target + t] = g * item[t].x;
  return error;
}

// Phase 2, a thread a weight and chunk: the sum of its gradient over the chunk's rows.
inline __device__ void sum_chunks(const PgdMlp& mlp, const MappingGradient& of, const Tile& tile,
                                  const Team& team) {
  const std::int64_t d_source = mlp.d_source, d_target = mlp.d_target, hidden = mlp.hidden;
  const std::int64_t size = of.size();
  for (std::int64_t at = team.thread; at < size * tile.chunks(); at += team.threads) {
    const std::int64_t chunk = at / size, i = at % size;
    const float *a, *b;
    std::int64_t a_width, b_width;
    if (i < of.part_begin[2]) {  // w1 or b1
      const bool bias = i >= of.part_begin[1];
      const std::int64_t j = bias ? i - of.part_begin[1] : i / d_source;
      a = of.unit + j;
      a_width = hidden;
      b = of.moved + (bias ? d_source : i % d_source);
      b_width = d_source + 1;
    } else {
      const bool bias = i >= of.part_begin[3];
      const std::int64_t k = i - of.part_begin[2];
      const std::int64_t t = bias ? i - of.part_begin[3] : k / hidden;
      a = of.scaled_item + t;
      a_width = d_target;
      b = of.activation + (bias ? hidden : k % hidden);
      b_width = hidden + 1;
    }
    const std::int64_t begin = chunk * kChunkRows;
    const std::int64_t end = begin + kChunkRows < tile.count ? begin + kChunkRows : tile.count;
    float sum = 0.0f;
    for (std::int64_t row = begin; row < end; ++row)
      sum = fmaf(a[row * a_width], b[row * b_width], sum);
    of.partial[at] = sum;
  }
}

// Phase 3, a thread a weight: adds up the chunks of the tile, and those of tiles before it.
inline __device__ void add_chunks(const MappingGradient& of, const Tile& tile, const Team& team) {
  for (std::int64_t i = team.thread; i < of.size(); i += team.threads) {
    float sum = tile.from == 0 ? 0.0f : of.gradient[i];
    for (int chunk = 0; chunk < tile.chunks(); ++chunk) sum += of.partial[chunk * of.size() + i];
    of.gradient[i] = sum;
  }
}

}  // namespace scdr::cuda
