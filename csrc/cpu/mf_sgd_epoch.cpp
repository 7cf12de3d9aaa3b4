// mf_sgd_epoch_ on the CPU: checks and memory. The batches are in mf_sgd_epoch_batches.h, the
// loops over their rows in mf_sgd_epoch_level.cpp, the arithmetic of a rating in math/.
#include "cpu/mf_sgd_epoch.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "cpu/mf_sgd_epoch_batches.h"
#include "cpu/padded_table.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/threads.h"
#include "mf_sgd_epoch_request.h"

namespace scdr {
namespace {

constexpr std::int64_t kParallelRows = 1 << 16;
// From how many visits a row on, on average, copying the tables into padded ones pays.
constexpr std::int64_t kVisitsWorthPadding = 3;

MfKernel pick_kernel(const MfRequest& request) {
  const MfSettings& settings = request.settings;
  const bool plain = !request.user_bias && !request.item_bias && settings.user_penalty == 0.0f &&
                     settings.item_penalty == 0.0f;
  switch (simd_level()) {
#if defined(__x86_64__)
    case SimdLevel::avx512:
      return avx512::mf_kernel(request.inner, request.d, plain);
    case SimdLevel::avx2:
      return avx2::mf_kernel(request.inner, request.d, plain);
#endif
    default:
      return scalar::mf_kernel(request.inner, request.d, plain);
  }
}

// Negative indices are large as unsigned ones.
template <class Index>
bool in_range(Index index, std::int64_t n) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(index)) <
         static_cast<std::uint64_t>(n);
}

template <class Index>
void throw_first_outside(const char* name, const Index* index, std::int64_t rows, std::int64_t n) {
  const Index* bad = std::find_if(index, index + rows, [n](Index i) { return !in_range(i, n); });
  check(bad == index + rows, kMfSgdEpoch, name, "holds ", *bad, " at row ", bad - index,
        ", outside [0, ", n, ")");
}

// Puts the three columns side by side and checks them on the way.
void gather_ratings(const MfRequest& request, bool threads, MfRating* out) {
  const auto* users = request.users.const_data_ptr<std::int32_t>();
  const auto* items = request.items.const_data_ptr<std::int32_t>();
  const auto* ratings = request.ratings.const_data_ptr<float>();
  const auto n_users = request.n_users, n_items = request.n_items, rows = request.rows;
  const bool good =
      all_ranges(rows, kParallelRows, threads, [&](std::int64_t begin, std::int64_t end) {
        bool fine = true;
        for (std::int64_t row = begin; row < end; ++row) {
          fine &= in_range(users[row], n_users) & in_range(items[row], n_items) &
                  (std::fabs(ratings[row]) <= std::numeric_limits<float>::max());
          out[row] = {users[row], items[row], ratings[row]};
        }
        return fine;
      });
  if (good) return;
  throw_first_outside("users", users, rows, n_users);
  throw_first_outside("items", items, rows, n_items);
  const float* bad =
      std::find_if(ratings, ratings + rows, [](float r) { return !std::isfinite(r); });
  check(false, kMfSgdEpoch, "ratings", "holds ", *bad, " at row ", bad - ratings);
}

template <class Index>
void check_order(const Index* order, std::int64_t visits, std::int64_t rows, bool threads) {
  const bool good =
      all_ranges(visits, kParallelRows, threads, [&](std::int64_t begin, std::int64_t end) {
        bool fine = true;
        for (std::int64_t at = begin; at < end; ++at) fine &= in_range(order[at], rows);
        return fine;
      });
  if (!good) throw_first_outside("order", order, visits, rows);
}

MfTables tables_of(const MfRequest& request) {
  const auto read = [](const auto& column) { return MfRequest::read(column); };
  return {.user = {request.user.mutable_data_ptr<float>(), request.d,
                   MfRequest::write(request.user_bias), read(request.user_inverse_count), 1},
          .item = {request.item.mutable_data_ptr<float>(), request.d,
                   MfRequest::write(request.item_bias), read(request.item_inverse_count), 1},
          .d = request.d};
}

// Whether both tables are finite; false also where looking at the visits is the quicker way to
// know.
bool tables_finite(const MfRequest& request) {
  const auto finite = [](const Tensor& table) {
    return all_finite(table.const_data_ptr<float>(), table.numel());
  };
  return request.visits >= request.n_users + request.n_items && finite(request.user) &&
         finite(request.item) && (!request.user_bias || finite(*request.user_bias)) &&
         (!request.item_bias || finite(*request.item_bias));
}

template <class Index>
double run_epoch(const MfRequest& request) {
  const EpochThreads threads(std::min(request.batch_size, request.visits), request.visits);
  Scratch<MfRating> ratings(static_cast<std::size_t>(request.rows));
  MfTables tables = tables_of(request);
  std::optional<PaddedTable> user, item;
  if (request.visits >= kVisitsWorthPadding * (request.n_users + request.n_items)) {
    user.emplace(tables.user, request.n_users, request.d);
    item.emplace(tables.item, request.n_items, request.d);
  }
  both(
      threads.second, [&] { gather_ratings(request, threads.batches, ratings.data()); },
      [&] {
        const auto* order = request.order.const_data_ptr<Index>();
        check_order(order, request.visits, request.rows, threads.batches);
        if (user) user->fill();
        if (item) item->fill();
      });
  if (user) tables.user = user->view();
  if (item) tables.item = item->view();
  Epoch<Index> epoch(request, pick_kernel(request), tables, ratings.data(), threads);
  const double loss = epoch.run();
  bool finite[2] = {true, true};
  if (user && item)
    both(
        threads.second, [&] { finite[0] = user->write_back(); },
        [&] { finite[1] = item->write_back(); });
  else
    finite[0] = tables_finite(request);
  if (!finite[0] || !finite[1]) epoch.check_results();
  return loss;
}

Tensor run_on_cpu(const MfRequest& request) {
  const double loss = request.order.scalar_type() == ScalarType::Long
                          ? run_epoch<std::int64_t>(request)
                          : run_epoch<std::int32_t>(request);
  Tensor result = torch::stable::new_empty(request.user, {}, ScalarType::Double);
  *result.mutable_data_ptr<double>() = loss;
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CPU, m) {
  m.impl("mf_sgd_epoch_", TORCH_BOX(&scdr::mf_sgd_epoch<scdr::run_on_cpu>));
}
