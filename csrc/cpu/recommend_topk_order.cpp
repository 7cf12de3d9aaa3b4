#include "cpu/recommend_topk_order.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace scdr {
namespace {

// Enough to be near the mean.
constexpr std::int64_t kSample = 4096;

double length(const float* vector, int d) {
  double sum = 0.0;
  for (int k = 0; k < d; ++k) sum += static_cast<double>(vector[k]) * vector[k];
  return std::sqrt(sum);
}

double offset_of(const TopkItems& items, std::int64_t item) {
  return items.offsets != nullptr ? items.offsets[item] : 0.0;
}

}  // namespace

double TopkOrder::distance(const float* vector) const {
  double sum = 0.0;
  for (int k = 0; k < d_; ++k) {
    const double difference = vector[k] - mean_[static_cast<std::size_t>(k)];
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

TopkOrder::TopkOrder(const TopkItems& items, const float* users, std::int64_t n_users)
    : d_(items.d),
      mean_(static_cast<std::size_t>(items.d)),
      order_(static_cast<std::size_t>(items.count)),
      bounds_(static_cast<std::size_t>(items.tiles * kBoundNorms)) {
  const std::int64_t step = items.count / kSample + 1, sampled = (items.count - 1) / step + 1;
  for (std::int64_t item = 0; item < items.count; item += step)
    for (int k = 0; k < d_; ++k)
      mean_[static_cast<std::size_t>(k)] +=
          items.vectors[item * d_ + k] / static_cast<double>(sampled);

  double least = std::numeric_limits<double>::infinity(), most = 0.0, typical = 0.0;
  for (std::int64_t user = 0; user < n_users; ++user) {
    const double norm = length(users + user * d_, d_);
    least = std::min(least, norm);
    most = std::max(most, norm);
    typical += norm / static_cast<double>(n_users);
  }
  for (int j = 0; j < kBoundNorms; ++j) {  // closer together where most are
    const double part = static_cast<double>(j) / (kBoundNorms - 1);
    norms_[j] = least + (most - least) * part * part;
  }

  // The first 16 bits of a key: 7 significant ones of offset + c ||v - m||.
  std::vector<std::uint16_t> rank(order_.size());
  torch::stable::parallel_for(0, items.count, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const double reach = offset_of(items, item) + typical * distance(items.vectors + item * d_);
      rank[static_cast<std::size_t>(item)] =
          static_cast<std::uint16_t>(~topk_key(static_cast<float>(reach), 0) >> 48);
    }
  });
  std::vector<std::int32_t> place_of(std::size_t{1} << 16);
  for (const std::uint16_t r : rank) ++place_of[r];
  std::int32_t before = 0;
  for (std::int32_t& place : place_of) before += std::exchange(place, before);

  // What rounding adds to a score at most, four times over, and at the bottom of float32's range.
  const double rounding = (d_ + 8) * 0x1p-22, underflow = 1e-40;
  double from_zero = 0.0;
  for (const double mean : mean_) from_zero += mean * mean;
  from_zero = std::sqrt(from_zero);
  std::fill(bounds_.begin(), bounds_.end(), -std::numeric_limits<double>::infinity());
  for (std::int64_t item = 0; item < items.count; ++item) {
    const std::int32_t place = place_of[rank[static_cast<std::size_t>(item)]]++;
    order_[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(item);
    const double offset = offset_of(items, item), away = distance(items.vectors + item * d_);
    const double still = offset + rounding * std::abs(offset) + underflow;
    const double slope = away + rounding * (away + from_zero);
    double* bound = bounds_.data() + place / kTileItems * kBoundNorms;
    for (int j = 0; j < kBoundNorms; ++j) bound[j] = std::max(bound[j], still + norms_[j] * slope);
  }
  for (std::int64_t i = (items.tiles - 1) * kBoundNorms - 1; i >= 0; --i) {
    double* bound = bounds_.data() + i;
    *bound = std::max(*bound, bound[kBoundNorms]);
  }
}

TopkItems TopkOrder::apply(TopkItems items) const {
  items.order = order_.data();
  items.bounds = bounds_.data();
  return items;
}

void TopkOrder::place(TopkUser& user) const {
  user.base = 0.0;
  for (int k = 0; k < d_; ++k) user.base += user.vector[k] * mean_[static_cast<std::size_t>(k)];
  const double norm = length(user.vector, d_);
  const double* above = std::upper_bound(norms_ + 1, norms_ + kBoundNorms - 1, norm);
  const double width = above[0] - above[-1];
  user.point = static_cast<std::int32_t>(above - 1 - norms_);
  user.weight = width > 0.0 ? (norm - above[-1]) / width : 0.0;
}

}  // namespace scdr
