// mf_sgd_epoch_ where batches are small: one block, a thread a visit. A thread reads its two rows
// from global memory at once, holds them in registers while it computes, and leaves its steps in
// shared memory; the thread of a row's first visit takes the steps of all of them off the row, and
// writes it.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/launch.h"
#include "cuda/mf_sgd_epoch.h"
#include "cuda/mf_sgd_epoch_update.h"
#include "cuda/ratings_check.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr int kBlockVisits = 512;  // more threads would have too few registers for two rows
constexpr int kBlockWidest = 16;   // factors

// Steps of visit t are at [t * pitch, t * pitch + d): an odd pitch spreads them over the banks.
SCDR_SHARED unsigned pitch_of(int capacity) { return static_cast<unsigned>(capacity) | 1u; }

// What the visits of a batch leave each other.
struct Room {
  float *user_step, *item_step;            // [visits, pitch]
  float *user_bias_step, *item_bias_step;  // [visits]
  MfLink *user_link, *item_link;           // [visits]

  static SCDR_SHARED std::size_t bytes(unsigned visits, unsigned pitch) {
    return visits * (2 * (pitch + 1) * sizeof(float) + 2 * sizeof(MfLink));
  }
  static __device__ Room of(float* memory, unsigned visits, unsigned pitch) {
    float* biases = memory + 2 * visits * pitch;
    auto* links = reinterpret_cast<MfLink*>(biases + 2 * visits);
    return {memory, memory + visits * pitch, biases, biases + visits, links, links + visits};
  }
};

// A row of a table, of d <= D factors; the others are 0, and change nothing.
template <int D>
__device__ void read_row(const MfTable& table, std::int64_t row, int d, float* x) {
  const float* from = table.factors + row * d;
  if (table.in_pairs) {
#pragma unroll
    for (int k = 0; k < D; k += 2) {
      const float2 pair = k < d ? *reinterpret_cast<const float2*>(from + k) : float2{0.0f, 0.0f};
      x[k] = pair.x;
      x[k + 1] = pair.y;
    }
  } else {
#pragma unroll
    for (int k = 0; k < D; ++k) x[k] = k < d ? from[k] : 0.0f;
  }
}

template <int D>
__device__ void write_row(const MfTable& table, std::int64_t row, int d, const float* x) {
  float* to = table.factors + row * d;
  if (table.in_pairs) {
#pragma unroll
    for (int k = 0; k < D; k += 2)
      if (k < d) *reinterpret_cast<float2*>(to + k) = float2{x[k], x[k + 1]};
  } else {
#pragma unroll
    for (int k = 0; k < D; ++k)
      if (k < d) to[k] = x[k];
  }
}

// What a visit knows of one side of the factorisation.
template <int D>
struct BlockSide {
  const MfSide& side;
  float* step;       // of all visits
  float* bias_step;  // or null
  MfLink* link;
  std::int64_t row;
  float x[D], bias, weight;

  __device__ bool first(unsigned visit) const { return (link[visit] & kFirst) != 0; }

  // Calls body(visit) for this visit and those that follow in its row.
  template <class Body>
  __device__ void for_each_visit(unsigned visit, Body body) const {
    for (;;) {
      body(visit);
      const unsigned next = link[visit] & kNoNext;
      if (next == kNoNext) return;
      visit = next;
    }
  }

  __device__ void read(std::int64_t row_, int d) {
    row = row_;
    read_row<D>(side.table, row, d, x);
    bias = bias_of(side, row);
    weight = weight_of(side, row);
  }

  // SGD. Returns whether what was written is finite.
  __device__ bool take_steps(unsigned visit, int d) {
    const unsigned pitch = pitch_of(D);
    for_each_visit(visit, [&](unsigned of) {
#pragma unroll
      for (int k = 0; k < D; ++k) x[k] -= step[of * pitch + static_cast<unsigned>(k)];
      if (bias_step != nullptr) bias -= bias_step[of];
    });
    write_row<D>(side.table, row, d, x);
    if (bias_step != nullptr) side.table.bias[row] = bias;
    float wrong = 0.0f * bias;
#pragma unroll
    for (int k = 0; k < D; ++k) wrong = fmaf(0.0f, x[k], wrong);
    return wrong == 0.0f;
  }

  // The row's gradient comes together at its first visit. Returns its square.
  __device__ double gather(unsigned visit) {
    const unsigned pitch = pitch_of(D);
    float sum[D] = {}, bias_sum = 0.0f;
    for_each_visit(visit, [&](unsigned of) {
#pragma unroll
      for (int k = 0; k < D; ++k) sum[k] += step[of * pitch + static_cast<unsigned>(k)];
      if (bias_step != nullptr) bias_sum += bias_step[of];
    });
#pragma unroll
    for (int k = 0; k < D; ++k) step[visit * pitch + static_cast<unsigned>(k)] = sum[k];
    if (bias_step != nullptr) bias_step[visit] = bias_sum;
    return mf_row_square_sum<RowPack, D>(D, sum, bias_step != nullptr ? &bias_sum : nullptr);
  }

  // By the gathered gradient. Returns whether what was written is finite.
  __device__ bool update(unsigned visit, int d, const MfUpdate& how) {
    const auto at = [&](const MfTable& table) {
      return table.factors != nullptr ? table.factors + row * d : nullptr;
    };
    RowPack wrong = mf_update<RowPack, 0>(at(side.table), at(side.first), at(side.second),
                                          step + visit * pitch_of(D), d, how);
    if (bias_step != nullptr) {
      const auto bias_at = [&](const MfTable& table) {
        return table.bias != nullptr ? table.bias + row : nullptr;
      };
      wrong = wrong + mf_update<RowPack, 0>(bias_at(side.table), bias_at(side.first),
                                            bias_at(side.second), bias_step + visit, 1, how);
    }
    return wrong.x == 0.0f;
  }
};

// The sum over the block, in an order that depends on nothing but its size; in all threads.
__device__ double sum_over_block(double value, double* of_warps) {
  value = sum_over_warp(value);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0.0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += of_warps[warp];
  return sum;
}

// Goes through the batches of [begin, end). The block has as many threads as a batch has visits,
// rounded up to whole warps; D >= d.
template <int D, Inner inner>
__global__ void __launch_bounds__(kBlockVisits, 1)
    block_kernel(const __grid_constant__ MfEpoch epoch, std::int64_t begin, std::int64_t end) {
  __shared__ double of_warps[kBlockVisits / 32];
  __shared__ int wrong_errors, wrong_results;
  const auto most = static_cast<unsigned>(::min(epoch.batch_size, end - begin));
  const Room room = Room::of(dynamic_shared<float>(), most, pitch_of(D));
  const unsigned thread = threadIdx.x;
  const int d = epoch.d;
  const MfSettings& settings = epoch.settings;
  BlockSide<D> user{epoch.user, room.user_step, nullptr, room.user_link, 0, {}, 0.0f, 1.0f};
  BlockSide<D> item{epoch.item, room.item_step, nullptr, room.item_link, 0, {}, 0.0f, 1.0f};
  if (epoch.user.table.bias != nullptr) user.bias_step = room.user_bias_step;
  if (epoch.item.table.bias != nullptr) item.bias_step = room.item_bias_step;
  if (thread == 0) wrong_errors = wrong_results = 0;
  const auto visit_at = [&](std::int64_t at) {
    return thread < most && at + thread < end ? epoch.visits[at + thread] : MfVisit{};
  };
  MfVisit visit = visit_at(begin);
  __syncthreads();
  std::int64_t number = 0;
  for (std::int64_t at = begin; at < end; at += most, ++number) {
    const bool mine = thread < most && at + thread < end;
    if (mine) {
      user.read(visit.user, d);
      item.read(visit.item, d);
      room.user_link[thread] = visit.user_link;
      room.item_link[thread] = visit.item_link;
    }
    const float rating = visit.rating;
    visit = visit_at(at + most);  // of the next batch: there in time
    if (mine) {
      const float base = settings.offset - rating + user.bias + item.bias;
      const MfError error = mf_error<RowPack, inner, D>(user.x, item.x, D, base, settings);
      mf_steps<RowPack, inner, D, true>(
          user.x, item.x, D, error, settings.lr, settings.user_penalty * user.weight,
          settings.item_penalty * item.weight, room.user_step + thread * pitch_of(D),
          room.item_step + thread * pitch_of(D));
      if (user.bias_step != nullptr)
        user.bias_step[thread] = mf_bias_step(error.error, user.bias, settings.lr,
                                              settings.user_bias_penalty * user.weight);
      if (item.bias_step != nullptr)
        item.bias_step[thread] = mf_bias_step(error.error, item.bias, settings.lr,
                                              settings.item_bias_penalty * item.weight);
      epoch.error[at + thread] = error.error;
      if (!isfinite(error.error)) {
        note_first(&epoch.bad->error, at + thread);
        atomicExch(&wrong_errors, 1);
      }
    }
    __syncthreads();
    if (wrong_errors != 0) return;
    const bool of_user = mine && user.first(thread), of_item = mine && item.first(thread);
    bool finite = true;
    if (!epoch.clips && !epoch.adam) {
      if (of_user) finite = user.take_steps(thread, d);
      if (of_item) finite = item.take_steps(thread, d) && finite;
    } else {
      double square = 0.0;
      if (of_user) square += user.gather(thread);
      if (of_item) square += item.gather(thread);
      const double sum = epoch.clips ? sum_over_block(square, of_warps) : 0.0;
      const MfUpdate how = update_of(epoch, number, sum);
      if (of_user) finite = user.update(thread, d, how);
      if (of_item) finite = item.update(thread, d, how) && finite;
    }
    if (!finite) {
      note_first(&epoch.bad->result, at + thread);
      atomicExch(&wrong_results, 1);
    }
    __syncthreads();
    if (wrong_results != 0) return;
  }
}

}  // namespace
}  // namespace scdr::cuda
