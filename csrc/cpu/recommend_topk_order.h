// The order in which recommend_topk visits items, and what it may leave out.
//
// With any vector m, <u, v> = <u, m> + <u, v - m> <= <u, m> + ||u|| ||v - m||, so the score of an
// item is at most <u, m> + offset + ||u|| ||v - m||. Items are visited by falling offset + c ||v -
// m||, for a typical length c; m is about their mean. A user is done as soon as the bound of all
// items to come is below the k-th best score.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/recommend_topk.h"

namespace scdr {

class TopkOrder {
 public:
  TopkOrder(const TopkItems& items, const float* users, std::int64_t n_users);

  // The same items, in this order.
  TopkItems apply(TopkItems items) const;
  // Sets where the user stands between the lengths at which the bounds are known, and the base.
  void place(TopkUser& user) const;

 private:
  double distance(const float* vector) const;

  int d_;
  std::vector<double> mean_;
  double norms_[kBoundNorms];  // ascending lengths of user vectors
  std::vector<std::int32_t> order_;
  std::vector<double> bounds_;
};

}  // namespace scdr
