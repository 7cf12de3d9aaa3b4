// recommend_topk on the CPU: checks, threads, and the ranking of candidates. The scan over items is
// in recommend_topk_level.cpp.
#include "cpu/recommend_topk.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <vector>

#include "cpu/recommend_topk_order.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "recommend_topk_request.h"

namespace scdr {
namespace {

// Threads take users by as many as the scan scores together.
constexpr std::int64_t kGroup = 4;
// Users go through the items together, as many as have room for their candidates in the second
// cache: turning the items costs each of them less then.
constexpr std::int64_t kCandidateBytes = 256 << 10;
constexpr std::int64_t kMostTogether = 512;
// The first scan sees this part of the items, so that the second knows a threshold from the start,
// in whatever order the items are.
constexpr std::int64_t kSampled = 16;
// So many users, and tiles of items, are worth putting the items in order for.
constexpr std::int64_t kWorthOrder = 32;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

TopkScan* pick_scan() {
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return avx512::topk_scan;
    case SimdLevel::avx2:
      return avx2::topk_scan;
#endif
    default:
      return scalar::topk_scan;
  }
}

std::uint32_t largest_magnitude(const Tensor& tensor) {
  const float* x = tensor.const_data_ptr<float>();
  std::atomic<std::uint32_t> most{0};
  torch::stable::parallel_for(
      0, tensor.numel(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
        std::uint32_t found = 0;
        for (std::int64_t i = begin; i < end; ++i)
          found = std::max(found, std::bit_cast<std::uint32_t>(x[i]) & kMagnitude);
        std::uint32_t before = most.load();
        while (before < found && !most.compare_exchange_weak(before, found)) {
        }
      });
  return most.load();
}

// The items of each user in ascending order.
template <class Index>
std::vector<std::int32_t> sorted_exclusions(const std::int64_t* offsets, const Index* items,
                                            const TopkRequest& request) {
  const std::int64_t n = request.n_excluded;
  bool rising = offsets[0] == 0 && offsets[request.n_users] == n;
  for (std::int64_t user = 0; user < request.n_users; ++user)
    rising = rising && offsets[user] <= offsets[user + 1];
  check_exclude_offsets(rising);
  for (std::int64_t i = 0; i < n; ++i) check_excluded_item(items[i], request.n_items);

  std::vector<std::int32_t> sorted(static_cast<std::size_t>(n));
  torch::stable::parallel_for(0, request.n_users, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t user = begin; user < end; ++user) {
      std::int32_t* to = sorted.data() + offsets[user];
      std::int32_t* to_end = std::transform(items + offsets[user], items + offsets[user + 1], to,
                                            [](Index i) { return static_cast<std::int32_t>(i); });
      if (!std::is_sorted(to, to_end)) std::sort(to, to_end);
    }
  });
  return sorted;
}

void keep_best(TopkUser& user, std::int32_t k) {
  if (user.count < k) return;
  std::uint64_t* const last = user.candidates + k - 1;
  std::nth_element(user.candidates, last, user.candidates + user.count, std::greater<>());
  user.count = k;
  user.worst = *last;
  user.threshold = topk_score(*last);
}

// One call, as its threads see it.
struct TopkCall {
  TopkItems items;
  const TopkOrder* order;               // or null
  const float* users;                   // [n_users, d]
  const std::int64_t* exclude_offsets;  // [n_users + 1] or null
  const std::int32_t* excluded;         // ascending for each user
  float* scores;                        // [n_users, width]
  std::int64_t* best;                   // [n_users, width]
  std::int64_t width;                   // as asked for: beyond room.k there is nothing
  TopkRoom room;
  TopkScan* scan;
};

// What a thread works in.
struct TopkScratch {
  TopkUser* users;
  std::uint64_t* candidates;
  float* tile;
};

void write_best(const TopkCall& call, TopkUser& user) {
  keep_best(user, call.room.k);
  std::sort(user.candidates, user.candidates + user.count, std::greater<>());
  float* scores = call.scores + user.row * call.width;
  std::int64_t* best = call.best + user.row * call.width;
  for (std::int64_t i = 0; i < call.width; ++i) {
    scores[i] = i < user.count ? topk_score(user.candidates[i]) : kNothing;
    best[i] = i < user.count ? topk_item(user.candidates[i]) : -1;
  }
}

// The users [begin, end), together.
void recommend_block(const TopkCall& call, std::int64_t begin, std::int64_t end,
                     const TopkScratch& scratch) {
  const std::int64_t n = end - begin, k = call.room.k;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t row = begin + i;
    TopkUser& user = scratch.users[i];
    user = {.row = row,
            .vector = call.users + row * call.items.d,
            .excluded = nullptr,
            .excluded_end = nullptr,
            .candidates = scratch.candidates + i * (call.room.room + kWidestPack),
            .worst = 0,
            .count = 0,
            .threshold = std::numeric_limits<float>::lowest(),
            .point = 0,
            .weight = 0.0,
            .base = 0.0};
    if (call.exclude_offsets != nullptr) {
      user.excluded = call.excluded + call.exclude_offsets[row];
      user.excluded_end = call.excluded + call.exclude_offsets[row + 1];
    }
    if (call.order != nullptr) call.order->place(user);
  }
  if (call.items.count > kSampled * kSampled * k) {
    call.scan(call.items, kSampled, scratch.users, n, call.room, scratch.tile);
    for (std::int64_t i = 0; i < n; ++i) {
      TopkUser& user = scratch.users[i];
      keep_best(user, call.room.k);
      // The sampled items come again, among all.
      if (user.count == k) user.worst -= 1;
      user.count = 0;
    }
  }
  call.scan(call.items, 1, scratch.users, n, call.room, scratch.tile);
  for (std::int64_t i = 0; i < n; ++i) write_best(call, scratch.users[i]);
}

void recommend(const TopkCall& call, std::int64_t n_users) {
  const std::int64_t stride = call.room.room + kWidestPack;
  const auto key_bytes = static_cast<std::int64_t>(sizeof(std::uint64_t));
  const std::int64_t groups = (n_users + kGroup - 1) / kGroup;
  const std::int64_t threads = std::min<std::int64_t>(torch::stable::get_num_threads(), groups);
  const std::int64_t share = (groups + threads - 1) / threads * kGroup;
  const std::int64_t room = kCandidateBytes / key_bytes / stride / kGroup * kGroup;
  const std::int64_t together = std::min({std::max(room, kGroup), kMostTogether, share});
  const std::int64_t tile = (call.items.d + 1) * kTileItems;
  // All of it before the threads start, which must not throw.
  Scratch<TopkUser> users(static_cast<std::size_t>(threads * together));
  Scratch<std::uint64_t> candidates(static_cast<std::size_t>(threads * together * stride));
  Scratch<float> tiles(static_cast<std::size_t>(threads * tile));
  torch::stable::parallel_for(0, threads, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t thread = first; thread < last; ++thread) {
      const std::int64_t end = std::min((thread + 1) * share, n_users);
      for (std::int64_t begin = thread * share; begin < end; begin += together)
        recommend_block(call, begin, std::min(begin + together, end),
                        {.users = users.data() + thread * together,
                         .candidates = candidates.data() + thread * together * stride,
                         .tile = tiles.data() + thread * tile});
    }
  });
}

TopkResult run_on_cpu(const TopkRequest& request) {
  check_magnitudes({.user = largest_magnitude(request.user_vectors),
                    .item = largest_magnitude(request.item_vectors),
                    .offset = request.offsets ? largest_magnitude(*request.offsets) : 0},
                   request.d);
  std::vector<std::int32_t> excluded;
  const std::int64_t* exclude_offsets = nullptr;
  if (request.exclude_items) {
    exclude_offsets = request.exclude_offsets->const_data_ptr<std::int64_t>();
    const Tensor& items = *request.exclude_items;
    excluded =
        items.scalar_type() == ScalarType::Int
            ? sorted_exclusions(exclude_offsets, items.const_data_ptr<std::int32_t>(), request)
            : sorted_exclusions(exclude_offsets, items.const_data_ptr<std::int64_t>(), request);
  }
  Tensor scores = torch::stable::new_empty(request.user_vectors, {request.n_users, request.k});
  Tensor items = torch::stable::new_empty(request.user_vectors, {request.n_users, request.k},
                                          ScalarType::Long);
  if (request.n_users == 0 || request.k == 0) return {scores, items};
  const std::int64_t k = std::clamp<std::int64_t>(request.n_items, 1, request.k);
  // All items fit into this much room, so that k may be as large as int32 holds.
  const std::int64_t room = std::min(k + std::max<std::int64_t>(k, 32), request.n_items + 1);
  TopkCall call{
      .items = {.vectors = request.item_vectors.const_data_ptr<float>(),
                .offsets = request.offsets ? request.offsets->const_data_ptr<float>() : nullptr,
                .count = request.n_items,
                .tiles = (request.n_items + kTileItems - 1) / kTileItems,
                .d = request.d,
                .order = nullptr,
                .bounds = nullptr},
      .order = nullptr,
      .users = request.user_vectors.const_data_ptr<float>(),
      .exclude_offsets = exclude_offsets,
      .excluded = excluded.data(),
      .scores = scores.mutable_data_ptr<float>(),
      .best = items.mutable_data_ptr<std::int64_t>(),
      .width = request.k,
      .room = {.room = static_cast<std::int32_t>(room),
               .k = static_cast<std::int32_t>(k),
               .keep_best = keep_best},
      .scan = pick_scan(),
  };
  std::optional<TopkOrder> order;
  if (request.n_users >= kWorthOrder && request.n_items >= kWorthOrder * kTileItems) {
    order.emplace(call.items, call.users, request.n_users);
    call.order = &*order;
    call.items = order->apply(call.items);
  }
  recommend(call, request.n_users);
  return {scores, items};
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("recommend_topk", TORCH_BOX(&scdr::recommend_topk<scdr::run_on_cpu>));
}
