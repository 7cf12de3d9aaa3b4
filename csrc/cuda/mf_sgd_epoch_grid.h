// The phases of a batch of mf_sgd_epoch_ on the whole grid. A group of threads does a visit, then a
// row of a table; how many groups there are does not change what comes out.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/mf_sgd_epoch.h"
#include "cuda/mf_sgd_epoch_update.h"
#include "cuda/pack.h"
#include "cuda/ratings_check.h"

namespace scdr::cuda {
namespace {

constexpr int kGridThreads = 256;
constexpr int kGridBlocksEach = 3;  // of a multiprocessor: more would leave threads few registers

// The visits [begin, end).
struct Batch {
  std::int64_t begin, end;

  __device__ unsigned size() const { return static_cast<unsigned>(end - begin); }
};

template <class Pack>
__device__ unsigned group_of_grid() {
  return static_cast<unsigned>(thread_of_grid() / Pack::width);
}
template <class Pack>
__device__ unsigned groups_of_grid() {
  return static_cast<unsigned>(threads_of_grid() / Pack::width);
}

// Errors and steps.
template <class Pack, Inner inner>
__device__ void compute(const MfEpoch& epoch, const Batch& batch) {
  const MfSettings& settings = epoch.settings;
  const int d = epoch.d;
  for (unsigned row = group_of_grid<Pack>(); row < batch.size(); row += groups_of_grid<Pack>()) {
    const MfVisit visit = epoch.visits[batch.begin + row];
    const std::int64_t user = visit.user, item = visit.item, step = std::int64_t{row} * d;
    const float* u = epoch.user.table.factors + user * d;
    const float* v = epoch.item.table.factors + item * d;
    const float user_bias = bias_of(epoch.user, user), item_bias = bias_of(epoch.item, item);
    const float base = settings.offset - visit.rating + user_bias + item_bias;
    const MfError error = mf_error<Pack, inner, 0>(u, v, d, base, settings);
    const float user_weight = weight_of(epoch.user, user);
    const float item_weight = weight_of(epoch.item, item);
    mf_steps<Pack, inner, 0, true>(u, v, d, error, settings.lr, settings.user_penalty * user_weight,
                                   settings.item_penalty * item_weight, epoch.user.step + step,
                                   epoch.item.step + step);
    if (Pack::lane() != 0) continue;
    epoch.error[batch.begin + row] = error.error;
    if (!isfinite(error.error)) note_first(&epoch.bad->error, batch.begin + row);
    if (epoch.user.table.bias != nullptr)
      epoch.user.bias_step[row] = mf_bias_step(error.error, user_bias, settings.lr,
                                               settings.user_bias_penalty * user_weight);
    if (epoch.item.table.bias != nullptr)
      epoch.item.bias_step[row] = mf_bias_step(error.error, item_bias, settings.lr,
                                               settings.item_bias_penalty * item_weight);
  }
}

// One row of a table, and its visits in the batch: places[first, last).
struct Segment {
  const MfPlace* places;
  std::int64_t row;
  unsigned first, last;
};

// Calls body(segment) for each row of the side's table in the batch, by one group each.
template <class Pack, class Body>
__device__ void for_each_row(const MfSide& side, const Batch& batch, Body body) {
  const MfPlace* places = side.places + batch.begin;
  for (unsigned at = group_of_grid<Pack>(); at < batch.size(); at += groups_of_grid<Pack>()) {
    const std::int32_t row = places[at].row;
    if (at > 0 && places[at - 1].row == row) continue;
    unsigned last = at + 1;
    while (last < batch.size() && places[last].row == row) ++last;
    body(Segment{places, row, at, last});
  }
}

// Folds the steps of the segment's visits from number `first` on into `into`, in order: `into`
// [width], step [batch, width]. Returns whether what this thread has written is finite.
template <class Pack, class Fold>
__device__ bool fold_steps(float* into, const float* step, int width, const Segment& of,
                           unsigned first, Fold fold) {
  bool finite = true;
  for (int j = 0; j < width; j += Pack::width) {
    Pack value = Pack::load(into + j, width - j);
#pragma unroll 4
    for (unsigned at = first; at < of.last; ++at)
      value = fold(value,
                   Pack::load(step + std::int64_t{of.places[at].in_batch} * width + j, width - j));
    store(into + j, width - j, value);
    finite = finite && isfinite(value.x);
  }
  return finite;
}

// SGD: the steps are taken off the table.
template <class Pack>
__device__ void apply(const MfEpoch& epoch, const MfSide& side, const Batch& batch) {
  const auto minus = [](Pack x, Pack y) { return x - y; };
  for_each_row<Pack>(side, batch, [&](const Segment& of) {
    bool finite = fold_steps<Pack>(side.table.factors + of.row * epoch.d, side.step, epoch.d, of,
                                   of.first, minus);
    if (side.table.bias != nullptr)
      finite &= fold_steps<Pack>(side.table.bias + of.row, side.bias_step, 1, of, of.first, minus);
    if (!finite) note_first(&epoch.bad->result, batch.begin + of.places[of.first].in_batch);
  });
}

// The gradient of each row comes together at the first of its visits; squares, if any, takes its
// square there, and 0 at the others.
template <class Pack>
__device__ void gather(const MfEpoch& epoch, const MfSide& side, const Batch& batch,
                       double* squares) {
  const auto plus = [](Pack x, Pack y) { return x + y; };
  for_each_row<Pack>(side, batch, [&](const Segment& of) {
    const std::int64_t to = of.places[of.first].in_batch;
    float* step = side.step + to * epoch.d;
    float* bias_step = side.table.bias != nullptr ? side.bias_step + to : nullptr;
    fold_steps<Pack>(step, side.step, epoch.d, of, of.first + 1, plus);
    if (bias_step != nullptr)
      fold_steps<Pack>(bias_step, side.bias_step, 1, of, of.first + 1, plus);
    if (squares == nullptr) return;
    __syncwarp(Pack::mask());
    const double square = mf_row_square_sum<Pack, 0>(epoch.d, step, bias_step);
    for (unsigned i = of.first + Pack::lane(); i < of.last; i += Pack::width)
      squares[i] = i == of.first ? square : 0.0;
  });
}

__device__ unsigned sums_of_squares(unsigned visits) {
  return (2 * visits + kSquaresTogether - 1) / kSquaresTogether;
}

// A warp each.
__device__ void sum_squares(const MfEpoch& epoch, unsigned visits) {
  for (unsigned part = group_of_grid<WarpPack>(); part < sums_of_squares(visits);
       part += groups_of_grid<WarpPack>()) {
    const unsigned end = ::min((part + 1) * kSquaresTogether, 2 * visits);
    double mine = 0.0;
    for (unsigned i = part * kSquaresTogether + WarpPack::lane(); i < end; i += WarpPack::width)
      mine += epoch.squares[i];
    mine = sum_over_warp(mine);
    if (WarpPack::lane() == 0) epoch.sums_of_squares[part] = mine;
  }
}

// The sum of those sums, the same in every warp.
__device__ double square_sum(const MfEpoch& epoch, unsigned visits) {
  double mine = 0.0;
  for (unsigned i = WarpPack::lane(); i < sums_of_squares(visits); i += WarpPack::width)
    mine += epoch.sums_of_squares[i];
  return sum_over_warp(mine);
}

// By the gathered gradient.
template <class Pack>
__device__ void update(const MfEpoch& epoch, const MfSide& side, const Batch& batch,
                       const MfUpdate& how) {
  const int d = epoch.d;
  for_each_row<Pack>(side, batch, [&](const Segment& of) {
    const std::int64_t from = of.places[of.first].in_batch;
    const auto row = [&](const MfTable& table) { return table.factors + of.row * d; };
    Pack wrong = mf_update<Pack, 0>(row(side.table), row(side.first), row(side.second),
                                    side.step + from * d, d, how);
    if (side.table.bias != nullptr)
      wrong = wrong + mf_update<Pack, 0>(side.table.bias + of.row, side.first.bias + of.row,
                                         side.second.bias + of.row, side.bias_step + from, 1, how);
    if (!(wrong.x == 0.0f)) note_first(&epoch.bad->result, batch.begin + from);
  });
}

// All blocks of the grid, which run at once, go through the batches of [begin, end).
template <class Pack, Inner inner>
__global__ void __launch_bounds__(kGridThreads, kGridBlocksEach)
    grid_kernel(const __grid_constant__ MfEpoch epoch, std::int64_t begin, std::int64_t end) {
  const auto wait_for_all = [] { cooperative_groups::this_grid().sync(); };
  std::int64_t number = 0;
  for (std::int64_t at = begin; at < end; at += epoch.batch_size, ++number) {
    const Batch batch{at, ::min(at + epoch.batch_size, end)};
    compute<Pack, inner>(epoch, batch);
    wait_for_all();
    if (epoch.bad->error != kNowhere) return;
    if (!epoch.clips && !epoch.adam) {
      apply<Pack>(epoch, epoch.user, batch);
      apply<Pack>(epoch, epoch.item, batch);
    } else {
      gather<Pack>(epoch, epoch.user, batch, epoch.clips ? epoch.squares : nullptr);
      gather<Pack>(epoch, epoch.item, batch, epoch.clips ? epoch.squares + batch.size() : nullptr);
      if (epoch.clips) {
        wait_for_all();
        sum_squares(epoch, batch.size());
        wait_for_all();
      }
      const MfUpdate how =
          update_of(epoch, number, epoch.clips ? square_sum(epoch, batch.size()) : 0.0);
      update<Pack>(epoch, epoch.user, batch, how);
      update<Pack>(epoch, epoch.item, batch, how);
    }
    wait_for_all();
    if (epoch.bad->result != kNowhere) return;
  }
}

}  // namespace
}  // namespace scdr::cuda
