// The kernels of recommend_topk: a block takes a few users through all items, a thread an item at a
// time. No torch here.
#include "cuda/recommend_topk.h"

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr const char* kOp = "recommend_topk";
// The first pass sees this part of the tiles, so that the second knows a threshold from the start,
// in whatever order the items are.
constexpr std::int64_t kSampled = 16;

__device__ std::int64_t excluded_at(const TopkArguments& arguments, std::int64_t at) {
  return arguments.exclude32 != nullptr ? arguments.exclude32[at] : arguments.exclude64[at];
}

__device__ void find_magnitude(const float* x, std::int64_t count, std::uint32_t* most) {
  std::uint32_t found = 0;
  for (std::int64_t at = thread_of_grid(); at < count; at += threads_of_grid()) {
    const std::uint32_t magnitude = __float_as_uint(x[at]) & 0x7fffffffu;
    if (magnitude > found) found = magnitude;
  }
  if (found > 0) atomicMax(most, found);
}

__global__ void check_kernel(TopkArguments arguments, TopkFound* found) {
  find_magnitude(arguments.users, arguments.n_users * arguments.d, &found->user);
  find_magnitude(arguments.items, arguments.n_items * arguments.d, &found->item);
  if (arguments.offsets != nullptr)
    find_magnitude(arguments.offsets, arguments.n_items, &found->offset);
  if (arguments.exclude_offsets == nullptr) return;
  const std::int64_t* offsets = arguments.exclude_offsets;
  bool rising = offsets[0] == 0 && offsets[arguments.n_users] == arguments.n_excluded;
  for (std::int64_t at = thread_of_grid(); at < arguments.n_users; at += threads_of_grid())
    rising = rising && offsets[at] <= offsets[at + 1];
  if (!rising) atomicMax(&found->falls, 1u);
  long long lowest = 0, highest = 0;
  for (std::int64_t at = thread_of_grid(); at < arguments.n_excluded; at += threads_of_grid()) {
    const long long item = excluded_at(arguments, at);
    if (item < lowest) lowest = item;
    if (item > highest) highest = item;
  }
  if (lowest < 0) atomicMin(&found->lowest, lowest);
  if (highest > 0) atomicMax(&found->highest, highest);
}

__global__ void exclusion_keys_kernel(TopkArguments arguments, std::int64_t* keys) {
  for (std::int64_t user = blockIdx.x; user < arguments.n_users; user += gridDim.x) {
    const std::int64_t end = arguments.exclude_offsets[user + 1];
    for (std::int64_t at = arguments.exclude_offsets[user] + threadIdx.x; at < end;
         at += kTopkThreads)
      keys[at] = user * arguments.n_items + excluded_at(arguments, at);
  }
}

SCDR_INLINE bool is_excluded(const TopkArguments& arguments, const std::int64_t* excluded,
                             std::int64_t user, std::int64_t item) {
  if (excluded == nullptr) return false;
  const std::int64_t key = user * arguments.n_items + item;
  std::int64_t first = arguments.exclude_offsets[user];
  const std::int64_t end = arguments.exclude_offsets[user + 1];
  for (std::int64_t n = end - first; n > 0;) {
    const std::int64_t half = n / 2;
    if (excluded[first + half] < key) {
      first += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return first < end && excluded[first] == key;
}

// What the threads of a block share of a user.
struct User {
  std::uint64_t worst;  // only a key above it can be among the best
  int count;            // of the candidates
};

// Sorts the candidates of a user, the best first, and drops all but k.
SCDR_INLINE void keep_best(User& user, std::uint64_t* candidates, std::int64_t k) {
  const std::int64_t count = user.count;
  std::int64_t n = 2;
  while (n < count) n *= 2;
  for (std::int64_t i = count + threadIdx.x; i < n; i += kTopkThreads) candidates[i] = 0;
  __syncthreads();
  for (std::int64_t size = 2; size <= n; size *= 2) {  // bitonic
    for (std::int64_t apart = size / 2; apart > 0; apart /= 2) {
      for (std::int64_t i = threadIdx.x; i < n / 2; i += kTopkThreads) {
        const std::int64_t left = 2 * i - (i & (apart - 1));
        const std::uint64_t a = candidates[left], b = candidates[left + apart];
        if ((a < b) == ((left & size) == 0)) {
          candidates[left] = b;
          candidates[left + apart] = a;
        }
      }
      __syncthreads();
    }
  }
  if (threadIdx.x == 0 && count >= k) {
    user.count = static_cast<int>(k);
    user.worst = candidates[k - 1];
  }
  __syncthreads();
}

// The same for those users of the block whose bit is set. All its threads call it, with nothing
// left to be written.
SCDR_INLINE void keep_best(unsigned which, User* users, std::uint64_t* candidates,
                           std::int64_t room, std::int64_t k) {
#pragma unroll 1
  for (int u = 0; u < kTopkUsers; ++u)
    if ((which >> u & 1u) != 0) keep_best(users[u], candidates + u * room, k);
}

// Adds the candidates of a tile of items to those of the users.
SCDR_INLINE void score_tile(const TopkArguments& arguments, const std::int64_t* excluded,
                            const float* vectors, std::int64_t first_user, std::int64_t tile,
                            User* users, std::uint64_t* candidates, std::int64_t room) {
  const float* user_vectors[kTopkUsers];
  for (int u = 0; u < kTopkUsers; ++u) user_vectors[u] = vectors + u * kMostTopkWidth;
  for (int i = static_cast<int>(threadIdx.x); i < kTopkTile; i += kTopkThreads) {
    const std::int64_t item = tile * kTopkTile + i;
    if (item >= arguments.n_items) return;
    const float offset = arguments.offsets != nullptr ? arguments.offsets[item] + 0.0f : 0.0f;
    RowPack score[kTopkUsers][1];
    for (int u = 0; u < kTopkUsers; ++u) score[u][0] = {offset};
    topk_add_products<RowPack, kTopkUsers, 1>(user_vectors, arguments.items + item * arguments.d, 1,
                                              arguments.d, score);
    for (int u = 0; u < kTopkUsers; ++u) {
      const std::uint64_t key = topk_key(score[u][0].x, static_cast<std::int32_t>(item));
      if (first_user + u < arguments.n_users && key > users[u].worst &&
          !is_excluded(arguments, excluded, first_user + u, item))
        candidates[u * room + atomicAdd(&users[u].count, 1)] = key;
    }
  }
}

__global__ void __launch_bounds__(kTopkThreads, 2)
    recommend_kernel(TopkArguments arguments, const std::int64_t* excluded, TopkOutput output) {
  __shared__ float vectors[kTopkUsers * kMostTopkWidth];
  __shared__ User users[kTopkUsers];
  const std::int64_t room = output.room, k = output.k;
  std::uint64_t* const candidates = output.candidates == nullptr
                                        ? dynamic_shared<std::uint64_t>()
                                        : output.candidates + blockIdx.x * kTopkUsers * room;
  const std::int64_t tiles = (arguments.n_items + kTopkTile - 1) / kTopkTile;

  for (std::int64_t first_user = static_cast<std::int64_t>(blockIdx.x) * kTopkUsers;
       first_user < arguments.n_users;
       first_user += static_cast<std::int64_t>(gridDim.x) * kTopkUsers) {
    for (int i = static_cast<int>(threadIdx.x); i < kTopkUsers * kMostTopkWidth;
         i += kTopkThreads) {
      const std::int64_t user = first_user + i / kMostTopkWidth;
      const int factor = i % kMostTopkWidth;
      vectors[i] = user < arguments.n_users && factor < arguments.d
                       ? arguments.users[user * arguments.d + factor]
                       : 0.0f;
    }
    if (threadIdx.x < kTopkUsers) users[threadIdx.x] = {.worst = 0, .count = 0};
    __syncthreads();

    std::int64_t every = arguments.n_items > kSampled * kSampled * k ? kSampled : 1;
    while (true) {
      for (std::int64_t tile = 0; tile < tiles; tile += every) {
        score_tile(arguments, excluded, vectors, first_user, tile, users, candidates, room);
        __syncthreads();
        unsigned full = 0;
        for (int u = 0; u < kTopkUsers; ++u)
          full |= (users[u].count > room - kTopkTile ? 1u : 0u) << u;
        __syncthreads();  // all have read the counts before the next tile adds to them
        keep_best(full, users, candidates, room, k);
      }
      keep_best(~0u, users, candidates, room, k);
      if (every == 1) break;
      every = 1;
      if (threadIdx.x < kTopkUsers) {
        User& user = users[threadIdx.x];
        // The sampled items come again, among all.
        if (user.worst > 0) user.worst -= 1;
        user.count = 0;
      }
      __syncthreads();
    }

    for (int u = 0; u < kTopkUsers && first_user + u < arguments.n_users; ++u) {
      const std::int64_t row = (first_user + u) * output.width;
      for (std::int64_t i = threadIdx.x; i < output.width; i += kTopkThreads) {
        const bool there = i < users[u].count;
        const std::uint64_t key = there ? candidates[u * room + i] : 0;
        output.scores[row + i] = there ? topk_score(key) : -INFINITY;
        output.items[row + i] = there ? topk_item(key) : -1;
      }
    }
    __syncthreads();
  }
}

}  // namespace

TopkFound topk_check(const TopkArguments& arguments, TopkFound* found, int device,
                     void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kOp, cudaSetDevice(device));
  check_cuda(kOp, cudaMemsetAsync(found, 0, sizeof(TopkFound), stream));
  const std::int64_t work = std::max(arguments.n_users, arguments.n_items) * arguments.d;
  const unsigned blocks = blocks_for(std::max(work, arguments.n_excluded), kTopkThreads);
  launch(kOp, {blocks, kTopkThreads, stream}, check_kernel, arguments, found);
  return read(kOp, found, stream);
}

void topk_exclusion_keys(const TopkArguments& arguments, std::int64_t* keys, int device,
                         void* stream_handle) {
  check_cuda(kOp, cudaSetDevice(device));
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  launch(kOp, {blocks_for(arguments.n_users, 1), kTopkThreads, stream}, exclusion_keys_kernel,
         arguments, keys);
}

void topk_recommend(const TopkArguments& arguments, const std::int64_t* excluded,
                    const TopkOutput& output, int device, void* stream_handle) {
  check_cuda(kOp, cudaSetDevice(device));
  const std::size_t shared =
      output.candidates == nullptr
          ? static_cast<std::size_t>(kTopkUsers * output.room) * sizeof(std::uint64_t)
          : 0;
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  launch(kOp, {static_cast<unsigned>(output.blocks), kTopkThreads, stream, shared},
         recommend_kernel, arguments, excluded, output);
}

}  // namespace scdr::cuda
