// The kernels of mf_sgd_epoch_: one warp a rating, then one warp a row of a table. No torch here.
#include "cuda/mf_sgd_epoch.h"

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/pack.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr const char* kOp = "mf_sgd_epoch_";

__device__ std::int64_t row_of(const MfRatings& ratings, std::int64_t visit) {
  return ratings.order32 != nullptr ? ratings.order32[visit] : ratings.order64[visit];
}

__device__ bool outside(std::int64_t index, std::int64_t n) { return index < 0 || index >= n; }

__device__ void note_first(std::int64_t* first, std::int64_t at) {
  atomicMin(reinterpret_cast<unsigned long long*>(first), static_cast<unsigned long long>(at));
}

// status: users, items, ratings, order; first[k] becomes the lowest wrong place.
__global__ void check_kernel(MfRatings ratings, std::int64_t* first) {
  for (std::int64_t row = thread_of_grid(); row < ratings.rows; row += threads_of_grid()) {
    if (outside(ratings.users[row], ratings.n_users)) note_first(first, row);
    if (outside(ratings.items[row], ratings.n_items)) note_first(first + 1, row);
    if (!isfinite(ratings.ratings[row])) note_first(first + 2, row);
  }
  for (std::int64_t visit = thread_of_grid(); visit < ratings.visits; visit += threads_of_grid())
    if (outside(row_of(ratings, visit), ratings.rows)) note_first(first + 3, visit);
}

__global__ void keys_kernel(MfRatings ratings, std::int64_t batch_size, std::int64_t* user_keys,
                            std::int64_t* item_keys) {
  for (std::int64_t visit = thread_of_grid(); visit < ratings.visits; visit += threads_of_grid()) {
    const std::int64_t row = row_of(ratings, visit), batch = visit / batch_size;
    user_keys[visit] = batch * ratings.n_users + ratings.users[row];
    item_keys[visit] = batch * ratings.n_items + ratings.items[row];
  }
}

// The steps of the visits [begin, end), a batch: one warp each.
template <Inner inner>
__global__ void __launch_bounds__(kThreads)
    compute_kernel(const __grid_constant__ MfEpoch epoch, std::int64_t begin, std::int64_t end) {
  const MfRatings& ratings = epoch.ratings;
  const MfSettings& settings = epoch.settings;
  const int d = epoch.d;
  for (std::int64_t visit = begin + thread_of_grid() / 32; visit < end;
       visit += threads_of_grid() / 32) {
    const std::int64_t from = row_of(ratings, visit), row = visit - begin;
    const std::int64_t user = ratings.users[from], item = ratings.items[from];
    const float* u = epoch.user.factors + user * d;
    const float* v = epoch.item.factors + item * d;
    float base = settings.offset - ratings.ratings[from];
    if (epoch.user.bias != nullptr) base += epoch.user.bias[user];
    if (epoch.item.bias != nullptr) base += epoch.item.bias[item];
    const MfError error = mf_error<WarpPack, inner, 0>(u, v, d, base, settings);

    const float user_weight =
        epoch.user.inverse_count != nullptr ? epoch.user.inverse_count[user] : 1.0f;
    const float item_weight =
        epoch.item.inverse_count != nullptr ? epoch.item.inverse_count[item] : 1.0f;
    mf_steps<WarpPack, inner, 0, true>(
        u, v, d, error, settings.lr, settings.user_penalty * user_weight,
        settings.item_penalty * item_weight, epoch.user.step + row * d, epoch.item.step + row * d);
    if (WarpPack::lane() != 0) continue;
    epoch.error[visit] = error.error;
    if (!isfinite(error.error)) note_first(epoch.not_finite, visit);
    if (epoch.user.bias != nullptr)
      epoch.user.bias_step[row] = mf_bias_step(error.error, epoch.user.bias[user], settings.lr,
                                               settings.user_bias_penalty * user_weight);
    if (epoch.item.bias != nullptr)
      epoch.item.bias_step[row] = mf_bias_step(error.error, epoch.item.bias[item], settings.lr,
                                               settings.item_bias_penalty * item_weight);
  }
}

// Takes the steps of a batch off one table: the warp at the first of a row's visits does them all,
// in order of visit.
__device__ void apply_side(const MfSide& side, std::int64_t table_rows, std::int64_t batch_size,
                           int d, std::int64_t begin, std::int64_t end) {
  const std::int64_t first_key = begin / batch_size * table_rows;
  for (std::int64_t at = begin + thread_of_grid() / 32; at < end; at += threads_of_grid() / 32) {
    const std::int64_t key = side.keys[at];
    if (at > begin && side.keys[at - 1] == key) continue;
    const std::int64_t row = key - first_key;
    for (std::int64_t same = at; same < end && side.keys[same] == key; ++same) {
      const std::int64_t visit = side.sorted[same] - begin;
      mf_apply<WarpPack, 0>(side.factors + row * d, side.step + visit * d, d);
      if (side.bias != nullptr && WarpPack::lane() == 0) side.bias[row] -= side.bias_step[visit];
    }
  }
}

__global__ void __launch_bounds__(kThreads, 4)
    apply_kernel(const __grid_constant__ MfEpoch epoch, std::int64_t begin, std::int64_t end) {
  if (*epoch.not_finite < end) return;
  if (blockIdx.y == 0)
    apply_side(epoch.user, epoch.ratings.n_users, epoch.batch_size, epoch.d, begin, end);
  else
    apply_side(epoch.item, epoch.ratings.n_items, epoch.batch_size, epoch.d, begin, end);
}

// Sums in an order that depends on nothing but the count.
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

__global__ void square_sum_kernel(const float* error, std::int64_t count, double* block_loss) {
  sum_block(error, count, block_loss + blockIdx.x, [](double e) { return e * e; });
}

__global__ void sum_kernel(const double* block_loss, unsigned blocks, double* loss) {
  sum_block(block_loss, blocks, loss, [](double part) { return part; });
}

template <Inner inner>
void run_batches(const MfEpoch& epoch, cudaStream_t stream) {
  const std::int64_t visits = epoch.ratings.visits;
  for (std::int64_t begin = 0; begin < visits; begin += epoch.batch_size) {
    const std::int64_t end = std::min(begin + epoch.batch_size, visits);
    const unsigned blocks = blocks_for(end - begin, kWarps);
    launch(kOp, {blocks, kThreads, stream}, compute_kernel<inner>, epoch, begin, end);
    launch(kOp, {dim3(blocks, 2), kThreads, stream}, apply_kernel, epoch, begin, end);
  }
}

}  // namespace

MfWrong mf_check(const MfRatings& ratings, std::int64_t* status, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(status, 0x7f, sizeof(MfWrong), stream));
  launch(kOp, {blocks_for(ratings.rows, kThreads), kThreads, stream}, check_kernel, ratings,
         status);
  return read(kOp, reinterpret_cast<MfWrong*>(status), stream);
}

void mf_keys(const MfRatings& ratings, std::int64_t batch_size, std::int64_t* user_keys,
             std::int64_t* item_keys, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  launch(kOp, {blocks_for(ratings.visits, kThreads), kThreads, stream}, keys_kernel, ratings,
         batch_size, user_keys, item_keys);
}

std::int64_t mf_epoch(const MfEpoch& epoch, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(epoch.not_finite, 0x7f, sizeof(std::int64_t), stream));
  switch (epoch.inner) {
    case Inner::none:
      run_batches<Inner::none>(epoch, stream);
      break;
    case Inner::pgd:
      run_batches<Inner::pgd>(epoch, stream);
      break;
    case Inner::exact:
      run_batches<Inner::exact>(epoch, stream);
      break;
  }
  // As many blocks as give each thread something to sum; with them alone the order of the sum
  // varies.
  const std::int64_t visits = epoch.ratings.visits;
  const unsigned blocks = std::min<unsigned>(blocks_for(visits, 16 * kThreads), kLossBlocks);
  launch(kOp, {blocks, kThreads, stream}, square_sum_kernel, epoch.error, visits, epoch.block_loss);
  launch(kOp, {1, kThreads, stream}, sum_kernel, epoch.block_loss, blocks, epoch.loss);
  return read(kOp, epoch.not_finite, stream);
}

std::int64_t read_index(const std::int32_t* narrow, const std::int64_t* wide, std::int64_t at,
                        int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  return narrow != nullptr ? read(kOp, narrow + at, stream) : read(kOp, wide + at, stream);
}

}  // namespace scdr::cuda
