// The kernels of mapping_sgd_epoch_. The work on a batch is a chain of phases, each shared by so
// many threads; small batches run as one block that stays for many batches, with barriers between
// the phases, large ones as a launch for each phase. All sums have one order. No torch here.
#include "cuda/mapping_sgd_epoch.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/mapping_gradient_phases.h"
#include "cuda/mlp.h"
#include "cuda/ratings_check.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockThreads = 512;  // of the block that does small batches
// Hidden units that a thread works on at a time: chains of sums that do not wait for each other,
// since the block has few warps to hide them; one where more would not fit the registers.
template <int D>
constexpr int kTogether = D >= 8 && D <= 11 ? 2 : 1;
constexpr const char* kOp = "mapping_sgd_epoch_";

unsigned blocks_of(std::int64_t threads) { return blocks_for(threads, kThreads); }

struct Batch {
  std::int64_t number, begin, end;  // visits

  __device__ std::int64_t rows() const { return end - begin; }
};

__device__ Batch batch_of(const MappingEpoch& epoch, std::int64_t number) {
  const std::int64_t begin = number * epoch.batch_size, end = begin + epoch.batch_size;
  return {number, begin, end < epoch.ratings.visits ? end : epoch.ratings.visits};
}

// Phase 1: errors, and what the gradients are made of.
template <int D>
__device__ void compute_rows(const MappingEpoch& epoch, const PgdMlp& mlp, const Batch& batch,
                             const Tile& tile, const Team& team) {
  const Ratings& ratings = epoch.ratings;
  const float scale = 2.0f / static_cast<float>(batch.end - batch.begin);
  for_each_row<kGradientLanes>(
      team.thread, team.threads, tile.count, [&](std::int64_t at, int mine) {
        const auto row = static_cast<int>(at);
        const std::int64_t in_batch = tile.from + row,
                           from = row_of(ratings, batch.begin + in_batch);
        const float error = compute_row<D, kTogether<D>>(
            mlp, epoch.over_mapping, row, mine,
            epoch.user_vectors + static_cast<std::int64_t>(ratings.users[from]) * mlp.d_source,
            epoch.item + static_cast<std::int64_t>(ratings.items[from]) * mlp.d_target,
            ratings.ratings[from], scale, epoch.user_gradient + in_batch * mlp.d_source);
        if (mine > 0 && SharedRowPack<kGradientLanes>::lane() == 0) epoch.error[in_batch] = error;
      });
}

__device__ bool first_of_user(const MappingEpoch& epoch, const Batch& batch, std::int64_t at) {
  return at == batch.begin || epoch.keys[at] != epoch.keys[at - 1];
}

// In phase 3, a thread a coordinate of a user: adds up the gradients of the user's visits, in
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
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x)
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  __syncthreads();
  room[threadIdx.x] = sum;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
  }
  __syncthreads();
  return room[0];
}

// Phase 4, one block: loss, norm and fault of the batch.
__device__ void judge(const MappingEpoch& epoch, const Batch& batch, double* room) {
  const std::int64_t rows = batch.end - batch.begin;
  const double loss = block_square_sum(epoch.error, rows, room);
  double norm = block_square_sum(epoch.over_mapping.gradient, epoch.over_mapping.size(), room);
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
  const MappingGradient& of = epoch.over_mapping;
  const MappingUpdate of_mapping = update_of(epoch, batch, 0);
  for (int part = 0; part < 4; ++part) {
    const std::int64_t begin = of.part_begin[part], end = of.part_begin[part + 1];
    for (std::int64_t i = begin + team.thread; i < end; i += team.threads)
      finite &= update_one(epoch.part[part], i - begin, of.gradient[i], of_mapping);
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

template <int D, bool shared>
__global__ void __launch_bounds__(kBlockThreads, 1)
    batches_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t begin,
                   std::int64_t end) {
  __shared__ double room[kBlockThreads];
  const Team team = team_of_block();
  for (std::int64_t number = begin; number < end; ++number) {
    const Batch batch = batch_of(epoch, number);
    const Tile tile = tile_of(batch.rows(), 0);
    compute_rows<D>(epoch, mlp_of_block<shared>(epoch.mlp), batch, tile, team);
    __syncthreads();
    sum_chunks(epoch.mlp, epoch.over_mapping, tile, team);
    if (epoch.user.x != nullptr) sum_users(epoch, batch, team);
    __syncthreads();
    add_chunks(epoch.over_mapping, tile, team);
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

template <int D, bool shared>
__global__ void __launch_bounds__(kThreads, 1)
    rows_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number,
                std::int64_t from) {
  if (epoch.state->fault != kFine) return;
  const Batch batch = batch_of(epoch, number);
  compute_rows<D>(epoch, mlp_of_block<shared>(epoch.mlp), batch, tile_of(batch.rows(), from),
                  team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    chunks_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number,
                  std::int64_t from) {
  if (epoch.state->fault != kFine) return;
  sum_chunks(epoch.mlp, epoch.over_mapping, tile_of(batch_of(epoch, number).rows(), from),
             team_of_grid());
}

__global__ void __launch_bounds__(kThreads)
    add_kernel(const __grid_constant__ MappingEpoch epoch, std::int64_t number, std::int64_t from) {
  if (epoch.state->fault != kFine) return;
  add_chunks(epoch.over_mapping, tile_of(batch_of(epoch, number).rows(), from), team_of_grid());
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

__global__ void finite_kernel(const float* x, std::int64_t count, std::int64_t place,
                              MappingWrong* wrong) {
  const Team team = team_of_grid();
  for (std::int64_t i = team.thread; i < count; i += team.threads)
    if (!isfinite(x[i])) note_first(&wrong->tensor, place);
}

__global__ void keys_kernel(Ratings ratings, std::int64_t batch_size, std::int64_t* keys) {
  const Team team = team_of_grid();
  for (std::int64_t visit = team.thread; visit < ratings.visits; visit += team.threads)
    keys[visit] = visit / batch_size * ratings.n_users + ratings.users[row_of(ratings, visit)];
}

template <int D, bool shared>
void run(const MappingEpoch& epoch, std::int64_t begin, std::int64_t end, cudaStream_t stream) {
  const std::size_t bytes = shared ? bytes_of_weights(epoch.mlp) : 0;
  if (epoch.batch_size <= kMostRowsOfBlock) {
    launch(kOp, {1, kBlockThreads, stream, bytes}, batches_kernel<D, shared>, epoch, begin, end);
    return;
  }
  const std::int64_t size = epoch.over_mapping.size();
  const auto grid = [stream](std::int64_t threads) {
    return Grid{blocks_of(threads), kThreads, stream};
  };
  for (std::int64_t batch = begin; batch < end; ++batch) {
    const std::int64_t rows =
        std::min(epoch.batch_size, epoch.ratings.visits - batch * epoch.batch_size);
    for (std::int64_t from = 0; from < rows; from += kTileRows) {
      const Tile tile = tile_of(rows, from);
      launch(kOp, {blocks_of(tile.count * kGradientLanes), kThreads, stream, bytes},
             rows_kernel<D, shared>, epoch, batch, from);
      launch(kOp, grid(size * tile.chunks()), chunks_kernel, epoch, batch, from);
      launch(kOp, grid(size), add_kernel, epoch, batch, from);
    }
    const std::int64_t coordinates = rows * epoch.mlp.d_source;
    if (epoch.user.x != nullptr) launch(kOp, grid(coordinates), users_kernel, epoch, batch);
    launch(kOp, grid(1), judge_kernel, epoch, batch);
    launch(kOp, grid(std::max(coordinates, size)), update_kernel, epoch, batch);
  }
}

void run(const MappingEpoch& epoch, std::int64_t begin, std::int64_t end, cudaStream_t stream) {
  if (bytes_of_weights(epoch.mlp) + kBlockThreads * sizeof(double) > kSharedBytes)
    return run<0, false>(epoch, begin, end, stream);
  switch (epoch.mlp.d_source) {
    case 8:
      return run<8, true>(epoch, begin, end, stream);
    case 10:
      return run<10, true>(epoch, begin, end, stream);
    case 11:
      return run<11, true>(epoch, begin, end, stream);
    case 16:
      return run<16, true>(epoch, begin, end, stream);
    default:
      return run<0, true>(epoch, begin, end, stream);
  }
}

}  // namespace

MappingWrong mapping_check(const Ratings& ratings, const float* const* tensors,
                           const std::int64_t* counts, int number, MappingWrong* status, int device,
                           void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(status, 0x7f, sizeof(MappingWrong), stream));
  check_ratings(kOp, ratings, &status->ratings, stream);
  for (int i = 0; i < number; ++i)
    launch(kOp, {blocks_of(counts[i]), kThreads, stream}, finite_kernel, tensors[i], counts[i],
           std::int64_t{i}, status);
  return read(kOp, status, stream);
}

void mapping_keys(const Ratings& ratings, std::int64_t batch_size, std::int64_t* keys, int device,
                  void* stream_handle) {
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
