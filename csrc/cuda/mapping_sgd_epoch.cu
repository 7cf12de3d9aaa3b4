// The kernels of mapping_sgd_epoch_. The work on a batch is a chain of phases, each shared by so
// many threads; small batches run as one block that stays for many batches, with barriers between
// the phases, large ones as a launch for each phase. All sums have one order. No torch here.
#include "cuda/mapping_sgd_epoch.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

// Launch bounds with a number of blocks leave a kernel more registers than it would take for
// itself: without, some architectures spill.
constexpr int kThreads = 256;
constexpr const char* kOp = "mapping_sgd_epoch_";

unsigned blocks_of(std::int64_t threads) { return blocks_for(threads, kThreads); }

// The threads that share a phase.
struct Team {
  std::int64_t thread, threads;
};

__device__ Team team_of_grid() { return {thread_of_grid(), threads_of_grid()}; }
__device__ Team team_of_block() {
  return {static_cast<std::int64_t>(threadIdx.x), static_cast<std::int64_t>(blockDim.x)};
}

__device__ std::int64_t row_of(const MappingRatings& ratings, std::int64_t visit) {
  return ratings.order32 != nullptr ? ratings.order32[visit] : ratings.order64[visit];
}

struct Batch {
  std::int64_t number, begin, end;  // visits
};

__device__ Batch batch_of(const MappingEpoch& epoch, std::int64_t number) {
  const std::int64_t begin = number * epoch.batch_size, end = begin + epoch.batch_size;
  return {number, begin, end < epoch.ratings.visits ? end : epoch.ratings.visits};
}

// A tile of a batch: the rows from number `from` on, `count` of them.
struct Tile {
  std::int64_t from;
  int count;

  __device__ int chunks() const { return (count + kChunkRows - 1) / kChunkRows; }
};

__device__ Tile tile_of(const Batch& batch, std::int64_t from) {
  const std::int64_t left = batch.end - batch.begin - from;
  return {from, static_cast<int>(left < kTileRows ? left : kTileRows)};
}

// Copies count weights to `to` and moves it behind them.
__device__ const float* copy_weights(const float* from, int count, float*& to) {
  if (from == nullptr) return nullptr;
  float* const start = to;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    start[i] = from[i];
  to += count;
  return start;
}

// The mapping with its weights in shared memory, in all threads of the block.
__device__ PgdMlp shared_mlp(const PgdMlp& given, float* weights) {
  PgdMlp mlp = given;
  mlp.w1 = copy_weights(given.w1, given.hidden * given.d_source, weights);
  mlp.b1 = copy_weights(given.b1, given.hidden, weights);
  mlp.w2 = copy_weights(given.w2, given.d_target * given.hidden, weights);
  mlp.b2 = copy_weights(given.b2, given.d_target, weights);
  __syncthreads();
  return mlp;
}

// Phase 1, a thread a row: errors, gradients over users, and what the gradient over the mapping is
// made of.
__device__ void compute_rows(const MappingEpoch& epoch, const PgdMlp& mlp, const Batch& batch,
                             const Tile& tile, const Team& team) {
  const int n = mlp.d_source, d_target = mlp.d_target, hidden = mlp.hidden;
  const MappingRatings& ratings = epoch.ratings;
  const float scale = 2.0f / static_cast<float>(batch.end - batch.begin);
  for (int row = static_cast<int>(team.thread); row < tile.count;
       row += static_cast<int>(team.threads)) {
    const std::int64_t in_batch = tile.from + row, visit = batch.begin + in_batch;
    const std::int64_t from = row_of(ratings, visit);
    RowPack user[kMostPgdWidth], x[kMostPgdWidth], delta[kMostPgdWidth], slope[kMostPgdWidth];
    RowPack item[kMostPgdWidth], readout[kMostPgdWidth];
    const float* u = epoch.user_vectors + static_cast<std::int64_t>(ratings.users[from]) * n;
    const float* v = epoch.item + static_cast<std::int64_t>(ratings.items[from]) * d_target;
    for (int k = 0; k < n; ++k) user[k] = {u[k]};
    for (int t = 0; t < d_target; ++t) item[t] = {v[t]};
    float* unit = epoch.unit + std::int64_t{row} * hidden;
    float* activation = epoch.activation + std::int64_t{row} * (hidden + 1);
    const float error =
        mapping_error<RowPack, 0, 1>(mlp, user, item, RowPack{ratings.ratings[from]}, readout, x,
                                     delta, slope,
                                     [&](int j, const RowPack& h, const RowPack& c) {
                                       activation[j] = h.x;
                                       unit[j] = c.x;
                                     })
            .x;
    const float g = scale * error;
    epoch.error[in_batch] = error;
    activation[hidden] = 1.0f;
    float* moved = epoch.moved + std::int64_t{row} * (n + 1);
    float* over_user = epoch.user_gradient + in_batch * n;
    for (int k = 0; k < n; ++k) {
      moved[k] = g * user[k].x;
      over_user[k] = g * slope[k].x;
    }
    moved[n] = g;
    for (int t = 0; t < d_target; ++t)
      epoch.scaled_item[std::int64_t{row} * d_target + t] = g * item[t].x;
  }
}

// Phase 2, a thread a weight and chunk: the sum of its gradient over the chunk's rows.
__device__ void sum_chunks(const MappingEpoch& epoch, const Tile& tile, const Team& team) {
  const std::int64_t d_source = epoch.mlp.d_source, d_target = epoch.mlp.d_target;
  const std::int64_t hidden = epoch.mlp.hidden, size = epoch.part_begin[4];
  for (std::int64_t at = team.thread; at < size * tile.chunks(); at += team.threads) {
    const std::int64_t chunk = at / size, i = at % size;
    const float *a, *b;
    std::int64_t a_width, b_width;
    if (i < epoch.part_begin[2]) {  // w1 or b1
      const bool bias = i >= epoch.part_begin[1];
      const std::int64_t j = bias ? i - epoch.part_begin[1] : i / d_source;
      a = epoch.unit + j;
      a_width = hidden;
      b = epoch.moved + (bias ? d_source : i % d_source);
      b_width = d_source + 1;
    } else {
      const bool bias = i >= epoch.part_begin[3];
      const std::int64_t k = i - epoch.part_begin[2];
      const std::int64_t t = bias ? i - epoch.part_begin[3] : k / hidden;
      a = epoch.scaled_item + t;
      a_width = d_target;
      b = epoch.activation + (bias ? hidden : k % hidden);
      b_width = hidden + 1;
    }
    const std::int64_t begin = chunk * kChunkRows;
    const std::int64_t end = begin + kChunkRows < tile.count ? begin + kChunkRows : tile.count;
    float sum = 0.0f;
    for (std::int64_t row = begin; row < end; ++row)
      sum = fmaf(a[row * a_width], b[row * b_width], sum);
    epoch.partial[at] = sum;
  }
}

// Phase 3, a thread a weight: adds up the chunks of the tile, and those of tiles before it.
__device__ void add_chunks(const MappingEpoch& epoch, const Tile& tile, const Team& team) {
  const std::int64_t size = epoch.part_begin[4];
  for (std::int64_t i = team.thread; i < size; i += team.threads) {
    float sum = tile.from == 0 ? 0.0f : epoch.gradient[i];
    for (int chunk = 0; chunk < tile.chunks(); ++chunk) sum += epoch.partial[chunk * size + i];
    epoch.gradient[i] = sum;
  }
}

__device__ bool first_of_user(const MappingEpoch& epoch, const Batch& batch, std::int64_t at) {
  return at == batch.begin || epoch.keys[at] != epoch.keys[at - 1];
}

// Also phase 3, a thread a coordinate of a user: adds up the gradients of the user's visits, in
// order of visit. The others' sums are zero.
__device__ void sum_users(const MappingEpoch& epoch, const Batch& batch, const Team& team) {
  const std::int64_t d = epoch.mlp.d_source;
  for (std::int64_t i = team.thread; i < (batch.end - batch.begin) * d; i += team.threads) {
    const std::int64_t first = batch.begin + i / d, k = i % d;
    float sum = 0.0f;
    if (first_of_user(epoch, batch, first))
      for (std::int64_t at = first; at < batch.end && epoch.keys[at] == epoch.keys[first]; ++at)
        sum += epoch.user_gradient[(epoch.sorted[at] - batch.begin) * d + k];
    epoch.user_sum[i] = sum;
  }
}

// The sum of squares, in all threads of the block.
__device__ double block_square_sum(const float* x, std::int64_t count, double* room) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads)
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  __syncthreads();
  room[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) room[threadIdx.x] += room[threadIdx.x + half];
  }
  __syncthreads();
  return room[0];
}

// Phase 4, one block: loss, norm and fault of the batch.
__device__ void judge(const MappingEpoch& epoch, const Batch& batch, double* room) {
  const std::int64_t rows = batch.end - batch.begin;
  const double loss = block_square_sum(epoch.error, rows, room);
  double norm = block_square_sum(epoch.gradient, epoch.part_begin[4], room);
  if (epoch.user.x != nullptr)
    norm += block_square_sum(epoch.user_sum, rows * epoch.mlp.d_source, room);
  if (threadIdx.x == 0) {
    MappingState& state = *epoch.state;
    if (!isfinite(loss) || !isfinite(norm)) {
      state.fault = isfinite(loss) ? kGradient : kError;
      state.batch = batch.number;
    } else {
      const double scale = epoch.clip_norm / (sqrt(norm) + 1e-6);
      state.scale = scale < 1.0 ? scale : 1.0;
      state.loss += loss;
    }
  }
}

__device__ MappingUpdate update_of(const MappingEpoch& epoch, const Batch& batch, int which) {
  MappingUpdate update = epoch.update[which];
  update.scale = static_cast<float>(epoch.state->scale);
  if (update.adam) update.step = epoch.adam_steps[2 * batch.number + which];
  return update;
}

__device__ bool update_one(const MappingParameter& parameter, std::int64_t at, float gradient,
                           const MappingUpdate& update) {
  const bool adam = update.adam;
  const RowPack wrong =
      mapping_update<RowPack>(parameter.x + at, adam ? parameter.first + at : nullptr,
                              adam ? parameter.second + at : nullptr, &gradient, 1, update);
  return wrong.x == 0.0f;
}

__device__ unsigned long long* as_unsigned(std::int64_t* value) {
  return reinterpret_cast<unsigned long long*>(value);
}

// Phase 5, a thread a value: updates.
__device__ void update_all(const MappingEpoch& epoch, const Batch& batch, const Team& team) {
  bool finite = true;
  const MappingUpdate of_mapping = update_of(epoch, batch, 0);
  for (int part = 0; part < 4; ++part) {
    const std::int64_t begin = epoch.part_begin[part], end = epoch.part_begin[part + 1];
    for (std::int64_t i = begin + team.thread; i < end; i += team.threads)
      finite &= update_one(epoch.part[part], i - begin, epoch.gradient[i], of_mapping);
  }
  if (epoch.user.x != nullptr) {
    const std::int64_t d = epoch.mlp.d_source;
    const MappingUpdate of_user = update_of(epoch, batch, 1);
    for (std::int64_t i = team.thread; i < (batch.end - batch.begin) * d; i += team.threads) {
      const std::int64_t at = batch.begin + i / d;
      if (!first_of_user(epoch, batch, at)) continue;
      const std::int64_t user = epoch.keys[at] - batch.number * epoch.ratings.n_users;
      finite &= update_one(epoch.user, user * d + i % d, epoch.user_sum[i], of_user);
    }
  }
  if (!finite) {  // the batch first: who sees the fault asks for it
    atomicExch(as_unsigned(&epoch.state->batch), static_cast<unsigned long long>(batch.number));
    __threadfence();
    atomicExch(&epoch.state->fault, static_cast<int>(kUpdate));
  }
}

template <bool shared>
__global__ void __launch_bounds__(kThreads)
    batches_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t begin,
                   std::int64_t end) {
  float* weights = dynamic_shared<float>();
  __shared__ double room[kThreads];
  const Team team = team_of_block();
  for (std::int64_t number = begin; number < end; ++number) {
    const Batch batch = batch_of(epoch, number);
    const Tile tile = tile_of(batch, 0);
    if constexpr (shared)
      compute_rows(epoch, shared_mlp(epoch.mlp, weights), batch, tile, team);
    else
      compute_rows(epoch, epoch.mlp, batch, tile, team);
    __syncthreads();
    sum_chunks(epoch, tile, team);
    if (epoch.user.x != nullptr) sum_users(epoch, batch, team);
    __syncthreads();
    add_chunks(epoch, tile, team);
    __syncthreads();
    judge(epoch, batch, room);
    __syncthreads();
    if (epoch.state->fault != kFine) return;
    __syncthreads();  // all have looked before an update notes a fault of its own
    update_all(epoch, batch, team);
    __syncthreads();
    if (epoch.state->fault != kFine) return;
  }
}

template <bool shared>
__global__ void __launch_bounds__(kThreads) rows_kernel(const __grid_constant__ MappingEpoch epoch,
                                                        std::int64_t number, std::int64_t from) {
  float* weights = dynamic_shared<float>();
  if (epoch.state->fault != kFine) return;
  const Batch batch = batch_of(epoch, number);
  if constexpr (shared)
    compute_rows(epoch, shared_mlp(epoch.mlp, weights), batch, tile_of(batch, from),
                 team_of_grid());
  else
    compute_rows(epoch, epoch.mlp, batch, tile_of(batch, from), team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    chunks_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number,
                  std::int64_t from) {
  if (epoch.state->fault != kFine) return;
  sum_chunks(epoch, tile_of(batch_of(epoch, number), from), team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    add_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number, std::int64_t from) {
  if (epoch.state->fault != kFine) return;
  add_chunks(epoch, tile_of(batch_of(epoch, number), from), team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    users_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number) {
  if (epoch.state->fault != kFine) return;
  sum_users(epoch, batch_of(epoch, number), team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    judge_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number) {
  __shared__ double room[kThreads];
  if (epoch.state->fault != kFine) return;
  judge(epoch, batch_of(epoch, number), room);
}

// A block that finds a fault must not stop another that has not begun: that of this batch itself
// does not count.
__global__ void __launch_bounds__(kThreads, 4)
    update_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number) {
  __shared__ bool over;
  if (threadIdx.x == 0) {  // adding 0 only reads, while other blocks may write
    const int fault = atomicAdd(&epoch.state->fault, 0);
    __threadfence();
    over = fault == kError || fault == kGradient ||
           (fault == kUpdate && atomicAdd(as_unsigned(&epoch.state->batch), 0) !=
                                    static_cast<unsigned long long>(number));
  }
  __syncthreads();
  if (over) return;
  update_all(epoch, batch_of(epoch, number), team_of_grid());
}

__device__ void note_first(std::int64_t* first, std::int64_t at) {
  atomicMin(reinterpret_cast<unsigned long long*>(first), static_cast<unsigned long long>(at));
}

__device__ bool outside(std::int64_t index, std::int64_t n) { return index < 0 || index >= n; }

__global__ void check_kernel(MappingRatings ratings, MappingWrong* wrong) {
  const Team team = team_of_grid();
  for (std::int64_t row = team.thread; row < ratings.rows; row += team.threads) {
    if (outside(ratings.users[row], ratings.n_users)) note_first(&wrong->users, row);
    if (outside(ratings.items[row], ratings.n_items)) note_first(&wrong->items, row);
    if (!isfinite(ratings.ratings[row])) note_first(&wrong->ratings, row);
  }
  for (std::int64_t visit = team.thread; visit < ratings.visits; visit += team.threads)
    if (outside(row_of(ratings, visit), ratings.rows)) note_first(&wrong->order, visit);
}

__global__ void finite_kernel(const float* x, std::int64_t count, std::int64_t place,
                              MappingWrong* wrong) {
  const Team team = team_of_grid();
  for (std::int64_t i = team.thread; i < count; i += team.threads)
    if (!isfinite(x[i])) note_first(&wrong->tensor, place);
}

__global__ void keys_kernel(MappingRatings ratings, std::int64_t batch_size, std::int64_t* keys) {
  const Team team = team_of_grid();
  for (std::int64_t visit = team.thread; visit < ratings.visits; visit += team.threads)
    keys[visit] = visit / batch_size * ratings.n_users + ratings.users[row_of(ratings, visit)];
}

std::size_t shared_bytes(const PgdMlp& mlp) {
  const auto hidden = static_cast<std::size_t>(mlp.hidden);
  const auto widths = static_cast<std::size_t>(mlp.d_source + mlp.d_target);
  return sizeof(float) * (hidden * (widths + 1) + static_cast<std::size_t>(mlp.d_target));
}

void run(const MappingEpoch& epoch, std::int64_t begin, std::int64_t end, cudaStream_t stream) {
  std::size_t bytes = shared_bytes(epoch.mlp);
  const bool shared = bytes + kThreads * sizeof(double) <= kSharedBytes;
  if (!shared) bytes = 0;
  if (epoch.batch_size <= kMostRowsOfBlock) {
    launch(kOp, {1, kThreads, stream, bytes}, shared ? batches_kernel<true> : batches_kernel<false>,
           epoch, begin, end);
    return;
  }
  const std::int64_t size = epoch.part_begin[4];
  const auto grid = [stream](std::int64_t threads) {
    return Grid{blocks_of(threads), kThreads, stream};
  };
  for (std::int64_t batch = begin; batch < end; ++batch) {
    const std::int64_t rows =
        std::min(epoch.batch_size, epoch.ratings.visits - batch * epoch.batch_size);
    for (std::int64_t from = 0; from < rows; from += kTileRows) {
      const std::int64_t count = std::min<std::int64_t>(rows - from, kTileRows);
      const std::int64_t chunks = (count + kChunkRows - 1) / kChunkRows;
      launch(kOp, {blocks_of(count), kThreads, stream, bytes},
             shared ? rows_kernel<true> : rows_kernel<false>, epoch, batch, from);
      launch(kOp, grid(size * chunks), chunks_kernel, epoch, batch, from);
      launch(kOp, grid(size), add_kernel, epoch, batch, from);
    }
    const std::int64_t coordinates = rows * epoch.mlp.d_source;
    if (epoch.user.x != nullptr) launch(kOp, grid(coordinates), users_kernel, epoch, batch);
    launch(kOp, grid(1), judge_kernel, epoch, batch);
    launch(kOp, grid(std::max(coordinates, size)), update_kernel, epoch, batch);
  }
}

}  // namespace

MappingWrong mapping_check(const MappingRatings& ratings, const float* const* tensors,
                           const std::int64_t* counts, int number, MappingWrong* status, int device,
                           void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(status, 0x7f, sizeof(MappingWrong), stream));
  launch(kOp, {blocks_of(std::max(ratings.rows, ratings.visits)), kThreads, stream}, check_kernel,
         ratings, status);
  for (int i = 0; i < number; ++i)
    launch(kOp, {blocks_of(counts[i]), kThreads, stream}, finite_kernel, tensors[i], counts[i],
           std::int64_t{i}, status);
  return read(kOp, status, stream);
}

void mapping_keys(const MappingRatings& ratings, std::int64_t batch_size, std::int64_t* keys,
                  int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  launch(kOp, {blocks_of(ratings.visits), kThreads, stream}, keys_kernel, ratings, batch_size,
         keys);
}

void mapping_start(const MappingEpoch& epoch, int device, void* stream) {
  const MappingState state{.scale = 1.0, .loss = 0.0, .batch = 0, .fault = kFine};
  copy_to_device(epoch.state, &state, sizeof(state), device, stream);
}

MappingState mapping_batches(const MappingEpoch& epoch, std::int64_t begin, std::int64_t end,
                             int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  run(epoch, begin, end, stream);
  MappingState state{};
  copy_to_host(&state, epoch.state, sizeof(state), device, stream_handle);
  return state;
}

void copy_to_device(void* to, const void* from, std::size_t bytes, int device,
                    void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
  check_cuda(kOp, cudaStreamSynchronize(stream));
}

void copy_to_host(void* to, const void* from, std::size_t bytes, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
  check_cuda(kOp, cudaStreamSynchronize(stream));
}

}  // namespace scdr::cuda
