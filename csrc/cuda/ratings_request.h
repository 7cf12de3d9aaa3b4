// From an epoch's request to what its kernels take, and what is said of wrong ratings.
#pragma once

#include "check.h"
#include "cuda/ratings.h"

namespace scdr {

// Of a request with users, items, ratings, order and their numbers.
template <class Request>
cuda::Ratings ratings_of(const Request& request) {
  const bool wide = request.order.scalar_type() == ScalarType::Long;
  return {.users = request.users.template const_data_ptr<std::int32_t>(),
          .items = request.items.template const_data_ptr<std::int32_t>(),
          .ratings = request.ratings.template const_data_ptr<float>(),
          .order32 = wide ? nullptr : request.order.template const_data_ptr<std::int32_t>(),
          .order64 = wide ? request.order.template const_data_ptr<std::int64_t>() : nullptr,
          .rows = request.rows,
          .visits = request.visits,
          .n_users = request.n_users,
          .n_items = request.n_items};
}

// read_index(narrow, wide, at) reads one index from the device, of the one that is not null.
template <class ReadIndex>
void throw_if_wrong(const char* op, const cuda::WrongRatings& wrong, const cuda::Ratings& ratings,
                    const ReadIndex& read_index) {
  const auto outside = [&](const char* name, const std::int32_t* narrow, const std::int64_t* wide,
                           std::int64_t at, std::int64_t n) {
    if (at == cuda::kNowhere) return;
    check(false, op, name, "holds ", read_index(narrow, wide, at), " at row ", at, ", outside [0, ",
          n, ")");
  };
  outside("users", ratings.users, nullptr, wrong.users, ratings.n_users);
  outside("items", ratings.items, nullptr, wrong.items, ratings.n_items);
  check(wrong.ratings == cuda::kNowhere, op, "ratings", "is not finite at row ", wrong.ratings);
  outside("order", ratings.order32, ratings.order64, wrong.order, ratings.rows);
}

}  // namespace scdr
