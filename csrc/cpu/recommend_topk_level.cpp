// The scan over items of recommend_topk for one SIMD level. A tile of items is turned so that a
// register holds a column of neighbouring items, and is then scored for one small group of users
// after the other, in registers.
#include "cpu/recommend_topk.h"
#include "cpu/rows.h"

namespace scdr::SCDR_LEVEL {
namespace {

// So many sums that they and the items fit into the registers.
constexpr int kUsers = 4;
constexpr int kPacks = RowPack::width == 16 ? 4 : 2;
constexpr int kTogether = kPacks * RowPack::width;  // items that are scored together
static_assert(kTileItems % kTogether == 0 && RowPack::width <= kWidestPack);

SCDR_INLINE std::int64_t item_at(const TopkItems& items, std::int64_t visit) {
  return items.order != nullptr ? items.order[visit] : visit;
}

// Users whom no item from this tile on can reach go to the end. Returns how many stay.
std::int64_t keep_reached(const double* bounds, TopkUser* users, std::int64_t n) {
  for (std::int64_t i = 0; i < n;) {
    const TopkUser& user = users[i];
    const double low = bounds[user.point], high = bounds[user.point + 1];
    if (user.base + low + user.weight * (high - low) >= user.threshold) {
      ++i;
    } else {
      const TopkUser left = user;
      users[i] = users[--n];
      users[n] = left;
    }
  }
  return n;
}

// tile: [1 + d, kTileItems], the offsets first. Beyond the last item no score reaches a threshold.
void turn(const TopkItems& items, std::int64_t first, float* tile) {
  constexpr std::int64_t ahead = 16;
  const int d = items.d;
  for (int i = 0; i < kTileItems; ++i) {
    float* column = tile + i;
    if (first + i + ahead < items.count) {
      const float* soon = items.vectors + item_at(items, first + i + ahead) * d;
      __builtin_prefetch(soon);
      __builtin_prefetch(soon + d - 1);
    }
    if (first + i < items.count) {
      const std::int64_t item = item_at(items, first + i);
      const float* vector = items.vectors + item * d;
      *column = items.offsets != nullptr ? items.offsets[item] + 0.0f : 0.0f;  // 0 has no sign
      for (int k = 0; k < d; ++k) *(column += kTileItems) = vector[k];
    } else {
      *column = -__builtin_inff();
      for (int k = 0; k < d; ++k) *(column += kTileItems) = 0.0f;
    }
  }
}

bool is_excluded(const TopkUser& user, std::int32_t item) {
  const std::int32_t* first = user.excluded;
  for (std::int64_t n = user.excluded_end - first; n > 0;) {
    const std::int64_t half = n / 2;
    if (first[half] < item) {
      first += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return first != user.excluded_end && *first == item;
}

// Takes what can be among the best from kTogether scores.
__attribute__((noinline)) void take(const TopkItems& items, std::int64_t first, const float* scores,
                                    TopkUser& user, const TopkRoom& room) {
  for (int v = 0; v < kTogether; v += RowPack::width) {
    unsigned near = where_at_least(RowPack::load(scores + v), RowPack::all(user.threshold));
    for (; near != 0; near &= near - 1) {
      const int i = v + __builtin_ctz(near);
      const auto item = static_cast<std::int32_t>(item_at(items, first + i));
      const std::uint64_t key = topk_key(scores[i], item);
      if (key > user.worst && !is_excluded(user, item)) user.candidates[user.count++] = key;
    }
    if (user.count >= room.room) room.keep_best(user, room.k);
  }
}

// Scores a tile for U users.
template <int U>
void score_tile(const TopkItems& items, std::int64_t first, const float* tile, TopkUser* users,
                const TopkRoom& room) {
  const float* vectors[U];
  RowPack threshold[U];
  for (int u = 0; u < U; ++u) {
    vectors[u] = users[u].vector;
    threshold[u] = RowPack::all(users[u].threshold);
  }
  for (int i = 0; i < kTileItems; i += kTogether) {
    RowPack score[U][kPacks];
    SCDR_UNROLL_KNOWN
    for (int v = 0; v < kPacks; ++v) {
      const RowPack offset = RowPack::load(tile + i + v * RowPack::width);
      SCDR_UNROLL_KNOWN
      for (int u = 0; u < U; ++u) score[u][v] = offset;
    }
    topk_add_products<RowPack, U, kPacks>(vectors, tile + kTileItems + i, kTileItems, items.d,
                                          score);
    SCDR_UNROLL_KNOWN
    for (int u = 0; u < U; ++u) {
      RowPack best = score[u][0];
      SCDR_UNROLL_KNOWN
      for (int v = 1; v < kPacks; ++v) best = max(best, score[u][v]);
      if (__builtin_expect(where_at_least(best, threshold[u]) != 0, 0)) {
        float scores[kTogether];
        SCDR_UNROLL_KNOWN
        for (int v = 0; v < kPacks; ++v) store(scores + v * RowPack::width, score[u][v]);
        take(items, first + i, scores, users[u], room);
        threshold[u] = RowPack::all(users[u].threshold);
      }
    }
  }
}

}  // namespace

void topk_scan(const TopkItems& items, std::int64_t every, TopkUser* users, std::int64_t n_users,
               const TopkRoom& room, float* tile) {
  for (std::int64_t at = 0; at < items.tiles; at += every) {
    if (items.bounds != nullptr)
      n_users = keep_reached(items.bounds + at * kBoundNorms, users, n_users);
    if (n_users == 0) return;
    const std::int64_t first = at * kTileItems;
    turn(items, first, tile);
    std::int64_t user = 0;
    for (; user + kUsers <= n_users; user += kUsers)
      score_tile<kUsers>(items, first, tile, users + user, room);
    for (; user < n_users; ++user) score_tile<1>(items, first, tile, users + user, room);
  }
}

}  // namespace scdr::SCDR_LEVEL
