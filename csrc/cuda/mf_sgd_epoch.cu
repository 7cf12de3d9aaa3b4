// The kernels of mf_sgd_epoch_. Batch after batch goes by inside one kernel, in one block where
// batches are small and on the whole grid where they are not. A group of threads does a rating,
// then a row of a table. No torch here.
#include "cuda/mf_sgd_epoch.h"

#include <cooperative_groups.h>

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/pack.h"
#include "cuda/ratings_check.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 768;  // more would leave each too few registers
// One block does batches up to so many rounds of work: a round, two trips to memory, takes about a
// quarter of what two barriers of the grid do, and leaves the others to other trainings.
constexpr std::int64_t kMostRounds = 8;
constexpr const char* kOp = "mf_sgd_epoch_";

__global__ void prepare_kernel(Ratings ratings, std::int64_t batch_size, MfVisit* visits,
                               std::int64_t* user_keys, std::int64_t* item_keys) {
  for (std::int64_t at = thread_of_grid(); at < ratings.visits; at += threads_of_grid()) {
    const std::int64_t row = row_of(ratings, at), batch = at / batch_size;
    const std::int32_t user = ratings.users[row], item = ratings.items[row];
    visits[at] = {user, item, ratings.ratings[row], 0.0f};
    user_keys[at] = batch * ratings.n_users + user;
    item_keys[at] = batch * ratings.n_items + item;
  }
}

__global__ void places_kernel(const std::int64_t* keys, const std::int64_t* sorted,
                              std::int64_t visits, std::int64_t batch_size,
                              std::int64_t rows_of_table, MfPlace* places) {
  for (std::int64_t at = thread_of_grid(); at < visits; at += threads_of_grid()) {
    const std::int64_t batch = at / batch_size;
    places[at] = {static_cast<std::int32_t>(keys[at] - batch * rows_of_table),
                  static_cast<std::uint32_t>(sorted[at] - batch * batch_size)};
  }
}

// What a batch is about, by number of the visit in it; in shared memory where one block does it.
struct Visits {
  const MfVisit* visits;
  const MfPlace *user_places, *item_places;
};

// A batch: its visits [begin, end), and where their steps are kept.
struct Batch {
  std::int64_t begin, end;
  Visits of;
  float *user_step, *item_step;            // [end - begin, d]
  float *user_bias_step, *item_bias_step;  // [end - begin]
};

template <class Pack>
__device__ std::int64_t group_of_grid() {
  return thread_of_grid() / Pack::width;
}
template <class Pack>
__device__ std::int64_t groups_of_grid() {
  return threads_of_grid() / Pack::width;
}

__device__ float weight_of(const MfSide& side, std::int64_t row) {
  return side.inverse_count != nullptr ? side.inverse_count[row] : 1.0f;
}

// Whether all errors that this thread has met are finite.
template <class Pack, Inner inner>
__device__ bool compute(const MfEpoch& epoch, const Batch& batch) {
  const MfSettings& settings = epoch.settings;
  const MfTable &users = epoch.user.table, &items = epoch.item.table;
  const int d = epoch.d;
  bool finite = true;
  for (std::int64_t row = group_of_grid<Pack>(); row < batch.end - batch.begin;
       row += groups_of_grid<Pack>()) {
    const MfVisit visit = batch.of.visits[row];
    const std::int64_t user = visit.user, item = visit.item, at = batch.begin + row;
    const float* u = users.factors + user * d;
    const float* v = items.factors + item * d;
    float base = settings.offset - visit.rating;
    if (users.bias != nullptr) base += users.bias[user];
    if (items.bias != nullptr) base += items.bias[item];
    const MfError error = mf_error<Pack, inner, 0>(u, v, d, base, settings);
    const float user_weight = weight_of(epoch.user, user);
    const float item_weight = weight_of(epoch.item, item);
    mf_steps<Pack, inner, 0, true>(u, v, d, error, settings.lr, settings.user_penalty * user_weight,
                                   settings.item_penalty * item_weight, batch.user_step + row * d,
                                   batch.item_step + row * d);
    if (Pack::lane() != 0) continue;
    epoch.error[at] = error.error;
    if (!isfinite(error.error)) {
      note_first(&epoch.bad->error, at);
      finite = false;
    }
    if (users.bias != nullptr)
      batch.user_bias_step[row] = mf_bias_step(error.error, users.bias[user], settings.lr,
                                               settings.user_bias_penalty * user_weight);
    if (items.bias != nullptr)
      batch.item_bias_step[row] = mf_bias_step(error.error, items.bias[item], settings.lr,
                                               settings.item_bias_penalty * item_weight);
  }
  return finite;
}

// One row of a table, and its visits in the batch: places[first, last).
struct Segment {
  std::int64_t row, first, last;
};

// Calls body(segment) for each row of the table in the batch, by one group each.
template <class Pack, class Body>
__device__ void for_each_row(const MfPlace* places, std::int64_t visits, Body body) {
  for (std::int64_t at = group_of_grid<Pack>(); at < visits; at += groups_of_grid<Pack>()) {
    const std::int32_t row = places[at].row;
    if (at > 0 && places[at - 1].row == row) continue;
    std::int64_t last = at + 1;
    while (last < visits && places[last].row == row) ++last;
    body(Segment{row, at, last});
  }
}

// Folds the steps of the visits places[first, last) into `into`, in order: `into` [width], step
// [batch, width]. Returns whether what this thread has written is finite.
template <class Pack, class Fold>
__device__ bool fold_steps(float* into, const float* step, int width, const MfPlace* places,
                           std::int64_t first, std::int64_t last, Fold fold) {
  bool finite = true;
  for (int j = 0; j < width; j += Pack::width) {
    Pack value = Pack::load(into + j, width - j);
#pragma unroll 4
    for (std::int64_t at = first; at < last; ++at)
      value =
          fold(value, Pack::load(step + std::int64_t{places[at].in_batch} * width + j, width - j));
    store(into + j, width - j, value);
    finite = finite && isfinite(value.x);
  }
  return finite;
}

// SGD: the steps are taken off the tables. Returns whether what this thread has written is finite.
template <class Pack>
__device__ bool apply(const MfEpoch& epoch, const MfTable& table, const MfPlace* places,
                      const Batch& batch, const float* step, const float* bias_step) {
  const auto minus = [](Pack x, Pack y) { return x - y; };
  bool all_finite = true;
  for_each_row<Pack>(places, batch.end - batch.begin, [&](const Segment& at) {
    bool finite = fold_steps<Pack>(table.factors + at.row * epoch.d, step, epoch.d, places,
                                   at.first, at.last, minus);
    if (table.bias != nullptr)
      finite &=
          fold_steps<Pack>(table.bias + at.row, bias_step, 1, places, at.first, at.last, minus);
    if (!finite) note_first(&epoch.bad->result, batch.begin + places[at.first].in_batch);
    all_finite &= finite;
  });
  return all_finite;
}

// The gradient of each row comes together at the first of its visits; squares, if any, takes its
// square there, and 0 at the others.
template <class Pack>
__device__ void gather(const MfEpoch& epoch, const MfPlace* places, const Batch& batch, float* step,
                       float* bias_step, double* squares) {
  const auto plus = [](Pack x, Pack y) { return x + y; };
  for_each_row<Pack>(places, batch.end - batch.begin, [&](const Segment& at) {
    const std::int64_t to = places[at.first].in_batch;
    fold_steps<Pack>(step + to * epoch.d, step, epoch.d, places, at.first + 1, at.last, plus);
    if (bias_step != nullptr)
      fold_steps<Pack>(bias_step + to, bias_step, 1, places, at.first + 1, at.last, plus);
    if (squares == nullptr) return;
    __syncwarp(Pack::mask());
    const double square = mf_row_square_sum<Pack, 0>(
        epoch.d, step + to * epoch.d, bias_step != nullptr ? bias_step + to : nullptr);
    for (std::int64_t i = at.first + Pack::lane(); i < at.last; i += Pack::width)
      squares[i] = i == at.first ? square : 0.0;
  });
}

__device__ double sum_over_warp(double value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

__device__ std::int64_t sums_of_squares(std::int64_t visits) {
  return (2 * visits + kSquaresTogether - 1) / kSquaresTogether;
}

// A warp each.
__device__ void sum_squares(const MfEpoch& epoch, std::int64_t visits) {
  for (std::int64_t part = group_of_grid<WarpPack>(); part < sums_of_squares(visits);
       part += groups_of_grid<WarpPack>()) {
    const std::int64_t end = min((part + 1) * kSquaresTogether, 2 * visits);
    double mine = 0.0;
    for (std::int64_t i = part * kSquaresTogether + WarpPack::lane(); i < end; i += WarpPack::width)
      mine += epoch.squares[i];
    mine = sum_over_warp(mine);
    if (WarpPack::lane() == 0) epoch.sums_of_squares[part] = mine;
  }
}

// How this batch updates the tables; every warp sums up the same.
__device__ MfUpdate update_of(const MfEpoch& epoch, std::int64_t visits, std::int64_t batch) {
  double scale = 1.0;
  if (epoch.clips) {
    double mine = 0.0;
    for (std::int64_t i = WarpPack::lane(); i < sums_of_squares(visits); i += WarpPack::width)
      mine += epoch.sums_of_squares[i];
    // As torch.nn.utils.clip_grad_norm_ does.
    scale = min(1.0, epoch.clip_norm / (sqrt(sum_over_warp(mine)) + 1e-6));
  }
  if (!epoch.adam)
    return {.scale = static_cast<float>(epoch.lr * scale), .adam = false, .step = {}};
  AdamStep step = epoch.adam_step;
  step.size = epoch.adam_sizes[batch];
  return {.scale = static_cast<float>(scale), .adam = true, .step = step};
}

// Returns whether what this thread has written is finite.
template <class Pack>
__device__ bool update(const MfEpoch& epoch, const MfSide& side, const MfPlace* places,
                       const Batch& batch, const float* step, const float* bias_step,
                       const MfUpdate& how) {
  const int d = epoch.d;
  bool all_finite = true;
  for_each_row<Pack>(places, batch.end - batch.begin, [&](const Segment& at) {
    const std::int64_t from = places[at.first].in_batch;
    const auto row = [&](const MfTable& table) { return table.factors + at.row * d; };
    Pack wrong = mf_update<Pack, 0>(row(side.table), row(side.first), row(side.second),
                                    step + from * d, d, how);
    if (side.table.bias != nullptr)
      wrong = wrong + mf_update<Pack, 0>(side.table.bias + at.row, side.first.bias + at.row,
                                         side.second.bias + at.row, bias_step + from, 1, how);
    if (!(wrong.x == 0.0f)) {
      note_first(&epoch.bad->result, batch.begin + from);
      all_finite = false;
    }
  });
  return all_finite;
}

// The one block that does small batches: a batch's visits wait in shared memory, and a thread reads
// one visit of the next batch while this one is computed, so that no one waits for them.
struct Stage {
  MfVisit* visits;  // [2, most]
  MfPlace* places;  // [2, 2, most]
  int* faults;      // [2] of errors, of results
  std::int64_t most;

  static SCDR_SHARED std::size_t bytes(std::int64_t most) {
    return static_cast<std::size_t>(2 * most) * (sizeof(MfVisit) + 2 * sizeof(MfPlace)) +
           2 * sizeof(int);
  }
  __device__ Visits of(std::int64_t number) const {
    const std::int64_t half = number % 2;
    return {visits + half * most, places + 2 * half * most, places + (2 * half + 1) * most};
  }
};

struct VisitAhead {
  MfVisit visit;
  MfPlace user, item;
};

__device__ VisitAhead read_ahead(const MfEpoch& epoch, std::int64_t at, std::int64_t end) {
  if (at >= end) return {};
  return {epoch.visits[at], epoch.user.places[at], epoch.item.places[at]};
}

__device__ void put(const Stage& stage, std::int64_t number, const VisitAhead& ahead) {
  if (threadIdx.x >= stage.most) return;
  const std::int64_t half = number % 2, at = threadIdx.x;
  stage.visits[half * stage.most + at] = ahead.visit;
  stage.places[2 * half * stage.most + at] = ahead.user;
  stage.places[(2 * half + 1) * stage.most + at] = ahead.item;
}

// Whether a thread has found something that is not finite, since when all have met. Of one block
// this is in shared memory, of the grid what threads have noted.
struct Fault {
  int* of_block;
  const std::int64_t* of_grid;

  __device__ void note(bool finite) const {
    if (!finite && of_block != nullptr) atomicExch(of_block, 1);
  }
  __device__ bool found() const {
    return of_block != nullptr ? *of_block != 0 : *of_grid != kNowhere;
  }
};

__device__ void wait_for_all(bool whole_grid) {
  if (whole_grid)
    cooperative_groups::this_grid().sync();
  else
    __syncthreads();
}

// Every block of the grid, all of which run at once, or the only one goes through the batches of
// [begin, end). The only one has as many threads as a batch has visits, or more, and keeps steps in
// shared memory where that was asked for.
template <class Pack, Inner inner>
__global__ void __launch_bounds__(kMostThreads)
    epoch_kernel(const __grid_constant__ MfEpoch epoch, std::int64_t begin, std::int64_t end,
                 bool whole_grid, bool shared_steps) {
  const std::int64_t most = min(epoch.batch_size, end - begin);
  Batch batch{begin,
              begin,
              {},
              epoch.user.step,
              epoch.item.step,
              epoch.user.bias_step,
              epoch.item.bias_step};
  auto* const visits_of_stage = dynamic_shared<MfVisit>();
  auto* const places_of_stage = reinterpret_cast<MfPlace*>(visits_of_stage + 2 * most);
  const Stage stage{visits_of_stage, places_of_stage,
                    reinterpret_cast<int*>(places_of_stage + 4 * most), most};
  if (shared_steps) {
    batch.user_step = reinterpret_cast<float*>(stage.faults + 2);
    batch.item_step = batch.user_step + most * epoch.d;
    batch.user_bias_step = batch.item_step + most * epoch.d;
    batch.item_bias_step = batch.user_bias_step + most;
  }
  if (epoch.user.table.bias == nullptr) batch.user_bias_step = nullptr;
  if (epoch.item.table.bias == nullptr) batch.item_bias_step = nullptr;
  const Fault error{whole_grid ? nullptr : stage.faults, &epoch.bad->error};
  const Fault result{whole_grid ? nullptr : stage.faults + 1, &epoch.bad->result};
  if (!whole_grid) {
    if (threadIdx.x < 2) stage.faults[threadIdx.x] = 0;
    put(stage, 0, read_ahead(epoch, begin + threadIdx.x, min(begin + most, end)));
    __syncthreads();
  }
  for (std::int64_t number = 0; batch.end < end; ++number) {
    batch.begin = batch.end;
    batch.end = min(batch.begin + epoch.batch_size, end);
    const std::int64_t visits = batch.end - batch.begin;
    VisitAhead ahead{};
    if (whole_grid) {
      batch.of = {epoch.visits + batch.begin, epoch.user.places + batch.begin,
                  epoch.item.places + batch.begin};
    } else {
      batch.of = stage.of(number);
      ahead = read_ahead(epoch, batch.end + threadIdx.x, min(batch.end + most, end));
    }
    error.note(compute<Pack, inner>(epoch, batch));
    if (!whole_grid) put(stage, number + 1, ahead);
    wait_for_all(whole_grid);
    if (error.found()) return;
    bool finite = true;
    if (epoch.clips || epoch.adam) {
      double* squares = epoch.clips ? epoch.squares : nullptr;
      gather<Pack>(epoch, batch.of.user_places, batch, batch.user_step, batch.user_bias_step,
                   squares);
      gather<Pack>(epoch, batch.of.item_places, batch, batch.item_step, batch.item_bias_step,
                   epoch.clips ? squares + visits : nullptr);
      if (epoch.clips) {
        wait_for_all(whole_grid);
        sum_squares(epoch, visits);
        wait_for_all(whole_grid);
      }
      const MfUpdate how = update_of(epoch, visits, number);
      finite = update<Pack>(epoch, epoch.user, batch.of.user_places, batch, batch.user_step,
                            batch.user_bias_step, how);
      finite &= update<Pack>(epoch, epoch.item, batch.of.item_places, batch, batch.item_step,
                             batch.item_bias_step, how);
    } else {
      finite = apply<Pack>(epoch, epoch.user.table, batch.of.user_places, batch, batch.user_step,
                           batch.user_bias_step);
      finite &= apply<Pack>(epoch, epoch.item.table, batch.of.item_places, batch, batch.item_step,
                            batch.item_bias_step);
    }
    result.note(finite);
    wait_for_all(whole_grid);
    if (result.found()) return;
  }
}

// Sums in an order that depends on nothing but the count and the number of blocks.
template <class Value, class Term>
__device__ void sum_block(const Value* values, std::int64_t count, double* out, Term term) {
  __shared__ double sums[kThreads];
  double mine = 0.0;
  for (std::int64_t at = thread_of_grid(); at < count; at += threads_of_grid())
    mine += term(static_cast<double>(values[at]));
  sums[threadIdx.x] = mine;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *out = sums[0];
}

__global__ void square_sum_kernel(const float* error, std::int64_t count, double* part) {
  sum_block(error, count, part + blockIdx.x, [](double e) { return e * e; });
}

__global__ void sum_kernel(const double* part, unsigned count, double* loss) {
  sum_block(part, count, loss, [](double value) { return value; });
}

template <class Pack, Inner inner>
void run_batches(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
                 cudaStream_t stream) {
  const auto kernel = epoch_kernel<Pack, inner>;
  const std::int64_t batch = std::min(epoch.batch_size, end - begin), work = batch * Pack::width;
  if (work <= kMostRounds * kMostThreads && Stage::bytes(batch) <= kSharedBytes) {
    const auto threads =
        static_cast<unsigned>(std::min<std::int64_t>((work + 31) / 32 * 32, kMostThreads));
    const auto of_steps = static_cast<std::size_t>(batch * (epoch.d + 1)) * 2 * sizeof(float);
    const std::size_t bytes = Stage::bytes(batch);
    const bool shared = bytes + of_steps <= kSharedBytes;
    launch(kOp, {1, threads, stream, bytes + (shared ? of_steps : 0)}, kernel, epoch, begin, end,
           false, shared);
    return;
  }
  int multiprocessors = 0, blocks_each = 0;
  check_cuda(kOp, cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  check_cuda(kOp, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, kernel, kThreads, 0));
  const unsigned blocks =
      std::min(blocks_for(work, kThreads), static_cast<unsigned>(multiprocessors * blocks_each));
  launch(kOp, {blocks, kThreads, stream, 0, true}, kernel, epoch, begin, end, true, false);
}

template <class Pack>
void run_batches(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
                 cudaStream_t stream) {
  switch (epoch.inner) {
    case Inner::none:
      return run_batches<Pack, Inner::none>(epoch, begin, end, device, stream);
    case Inner::pgd:
      return run_batches<Pack, Inner::pgd>(epoch, begin, end, device, stream);
    case Inner::exact:
      return run_batches<Pack, Inner::exact>(epoch, begin, end, device, stream);
  }
}

}  // namespace

WrongRatings mf_check(const Ratings& ratings, WrongRatings* status, int device,
                      void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(status, 0x7f, sizeof(WrongRatings), stream));
  check_ratings(kOp, ratings, status, stream);
  return read(kOp, status, stream);
}

void mf_prepare(const Ratings& ratings, std::int64_t batch_size, MfVisit* visits,
                std::int64_t* user_keys, std::int64_t* item_keys, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  launch(kOp, {blocks_for(ratings.visits, kThreads), kThreads, stream}, prepare_kernel, ratings,
         batch_size, visits, user_keys, item_keys);
}

void mf_places(const std::int64_t* keys, const std::int64_t* sorted, std::int64_t visits,
               std::int64_t batch_size, std::int64_t rows_of_table, MfPlace* places, int device,
               void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  launch(kOp, {blocks_for(visits, kThreads), kThreads, stream}, places_kernel, keys, sorted, visits,
         batch_size, rows_of_table, places);
}

MfBad mf_slice(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
               void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(epoch.bad, 0x7f, sizeof(MfBad), stream));
  // Two factors a thread: as many ratings at a time, and fewer shuffles for each, as that allows.
  if (epoch.d <= 16)
    run_batches<GroupPack<8>>(epoch, begin, end, device, stream);
  else if (epoch.d <= 32)
    run_batches<GroupPack<16>>(epoch, begin, end, device, stream);
  else
    run_batches<WarpPack>(epoch, begin, end, device, stream);
  return read(kOp, epoch.bad, stream);
}

void mf_copy_sizes(const float* from, float* to, std::int64_t count, int device,
                   void* stream_handle) {
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp,
             cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(float),
                             cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream_handle)));
}

void mf_loss(const float* error, std::int64_t visits, double* part, double* loss, int device,
             void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  const unsigned blocks = std::min<unsigned>(blocks_for(visits, 16 * kThreads), kLossBlocks);
  launch(kOp, {blocks, kThreads, stream}, square_sum_kernel, error, visits, part);
  launch(kOp, {1, kThreads, stream}, sum_kernel, part, blocks, loss);
}

std::int64_t read_index(const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at,
                        int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  return narrow != nullptr ? read(kOp, narrow + at, stream) : read(kOp, wide + at, stream);
}

}  // namespace scdr::cuda
