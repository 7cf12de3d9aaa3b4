// The kernels of mf_sgd_epoch_. Batch after batch goes by inside one kernel, in one block where
// batches are small and on the whole grid where they are not. No torch here.
#include "cuda/mf_sgd_epoch.h"

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/mf_sgd_epoch_block.h"
#include "cuda/mf_sgd_epoch_grid.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr const char* kOp = "mf_sgd_epoch_";

__global__ void prepare_kernel(Ratings ratings, std::int64_t batch_size, MfVisit* visits,
                               std::int64_t* user_keys, std::int64_t* item_keys) {
  for (std::int64_t at = thread_of_grid(); at < ratings.visits; at += threads_of_grid()) {
    const std::int64_t row = row_of(ratings, at), batch = at / batch_size;
    const std::int32_t user = ratings.users[row], item = ratings.items[row];
    visits[at] = {user, item, ratings.ratings[row], 0, 0};
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

// Each visit, in the order of its side, knows who comes before and after it.
__global__ void link_kernel(const std::int64_t* keys, const std::int64_t* sorted,
                            std::int64_t visits, std::int64_t batch_size, MfVisit* linked,
                            bool of_users) {
  for (std::int64_t at = thread_of_grid(); at < visits; at += threads_of_grid()) {
    const bool first = at == 0 || keys[at - 1] != keys[at];
    const bool last = at + 1 == visits || keys[at + 1] != keys[at];
    const auto next = last ? kNoNext : static_cast<MfLink>(sorted[at + 1] % batch_size);
    MfVisit& visit = linked[sorted[at]];
    (of_users ? visit.user_link : visit.item_link) =
        static_cast<MfLink>(next | (first ? kFirst : 0));
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

// The factors that a block's threads have room for.
int capacity_of(int d) { return d <= 8 ? 8 : d <= 10 ? 10 : kBlockWidest; }

std::size_t room_of(std::int64_t batch, int d) {
  return Room::bytes(static_cast<unsigned>(batch), pitch_of(capacity_of(d)));
}

template <int D, Inner inner>
void run_block(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, cudaStream_t stream) {
  const auto kernel = block_kernel<D, inner>;
  const std::int64_t batch = std::min(epoch.batch_size, end - begin);
  const std::size_t bytes = room_of(batch, epoch.d);
  if (bytes > kSharedBytes)
    check_cuda(kOp, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(bytes)));
  const auto threads = static_cast<unsigned>((batch + 31) / 32 * 32);
  launch(kOp, {1, threads, stream, bytes}, kernel, epoch, begin, end);
}

template <class Pack, Inner inner>
void run_grid(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
              cudaStream_t stream) {
  const auto kernel = grid_kernel<Pack, inner>;
  int multiprocessors = 0, blocks_each = 0;
  check_cuda(kOp, cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  check_cuda(kOp,
             cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, kernel, kGridThreads, 0));
  const std::int64_t threads = std::min(epoch.batch_size, end - begin) * Pack::width;
  const unsigned blocks = std::min(blocks_for(threads, kGridThreads),
                                   static_cast<unsigned>(multiprocessors * blocks_each));
  launch(kOp, {blocks, kGridThreads, stream, 0, true}, kernel, epoch, begin, end);
}

template <Inner inner>
void run_batches(const MfEpoch& epoch, std::int64_t begin, std::int64_t end, int device,
                 cudaStream_t stream) {
  if (epoch.user.places == nullptr) {
    switch (capacity_of(epoch.d)) {
      case 8:
        return run_block<8, inner>(epoch, begin, end, stream);
      case 10:
        return run_block<10, inner>(epoch, begin, end, stream);
      default:
        return run_block<kBlockWidest, inner>(epoch, begin, end, stream);
    }
  }
  // Two factors a thread: as many ratings at a time, and fewer shuffles for each, as that allows.
  if (epoch.d <= 16) return run_grid<GroupPack<8>, inner>(epoch, begin, end, device, stream);
  if (epoch.d <= 32) return run_grid<GroupPack<16>, inner>(epoch, begin, end, device, stream);
  run_grid<WarpPack, inner>(epoch, begin, end, device, stream);
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

bool mf_fits_block(std::int64_t batch, int d, int device) {
  if (batch > kBlockVisits || d > kBlockWidest) return false;
  int most = 0;
  check_cuda(kOp, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // Less what a kernel has of its own.
  return room_of(batch, d) + (1 << 10) <= static_cast<std::size_t>(most);
}

void mf_link(const std::int64_t* keys, const std::int64_t* sorted, std::int64_t visits,
             std::int64_t batch_size, MfVisit* linked, bool of_users, int device,
             void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  launch(kOp, {blocks_for(visits, kThreads), kThreads, stream}, link_kernel, keys, sorted, visits,
         batch_size, linked, of_users);
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
  switch (epoch.inner) {
    case Inner::none:
      run_batches<Inner::none>(epoch, begin, end, device, stream);
      break;
    case Inner::pgd:
      run_batches<Inner::pgd>(epoch, begin, end, device, stream);
      break;
    case Inner::exact:
      run_batches<Inner::exact>(epoch, begin, end, device, stream);
  }
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
