// mf_sgd_epoch_ on the CPU: checks, batches, threads. The arithmetic of a rating is in math/, the
// loops over the rows of a batch in mf_sgd_epoch_level.cpp.
#include "cpu/mf_sgd_epoch.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <optional>
#include <vector>

#include "cpu/padded_table.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "mf_sgd_epoch_request.h"
#include "slices.h"

namespace scdr {
namespace {

// Losses are summed over blocks of this many visits and then over blocks, at any number of threads.
constexpr std::int64_t kBlock = 64;
// Visits that are in the ring before the block being worked on, and those whose rating is on its
// way to the cache.
constexpr std::int64_t kStaged = 128;
constexpr std::int64_t kRequested = 256;
constexpr std::int64_t kMostStaged = 1024;
// Below this, starting threads costs more than they save.
constexpr std::int64_t kParallelBatch = 1 << 16;
constexpr std::int64_t kParallelGrain = 1024;
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

// Whether a batch of so many rows is worth torch's threads. If none is, they are left asleep during
// the whole epoch: once woken they spin for a while, beside the one that works.
bool worth_threads(std::int64_t batch) {
  return batch >= kParallelBatch && torch::stable::get_num_threads() > 1;
}

// Runs body(begin, end) over [0, count) and tells whether it returned true everywhere.
template <class Body>
bool all_of(std::int64_t count, bool threads, const Body& body) {
  if (!threads) return body(0, count);
  std::atomic<bool> good{true};
  torch::stable::parallel_for(0, count, kParallelRows, [&](std::int64_t begin, std::int64_t end) {
    if (!body(begin, end)) good.store(false, std::memory_order_relaxed);
  });
  return good.load();
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
  const bool good = all_of(rows, threads, [&](std::int64_t begin, std::int64_t end) {
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
  const bool good = all_of(visits, threads, [&](std::int64_t begin, std::int64_t end) {
    bool fine = true;
    for (std::int64_t at = begin; at < end; ++at) fine &= in_range(order[at], rows);
    return fine;
  });
  if (!good) throw_first_outside("order", order, visits, rows);
}

// What an epoch keeps where it takes the gradients of a batch as wholes.
class Gradients {
 public:
  Gradients(const MfRequest& request, const MfMoments& moments)
      : first_user_(static_cast<std::size_t>(request.n_users), -1),
        first_item_(static_cast<std::size_t>(request.n_items), -1),
        clip_norm_(request.clip_norm),
        adam_(request.adam),
        batches_(request.adam_step ? request.adam_step->mutable_data_ptr<std::int64_t>() : nullptr),
        moments_(moments) {}

  MfFirstVisits first() { return {first_user_.data(), first_item_.data()}; }
  bool clips() const { return clip_norm_.has_value(); }
  const MfMoments& moments() const { return moments_; }

  // How the next batch updates the tables; square_sum: of its gradient, where it is clipped.
  MfUpdate next(double square_sum) {
    double scale = 1.0;
    // As torch.nn.utils.clip_grad_norm_ does.
    if (clip_norm_) scale = std::min(1.0, *clip_norm_ / (std::sqrt(square_sum) + 1e-6));
    if (batches_ == nullptr)
      return {.scale = static_cast<float>(adam_.lr * scale), .adam = false, .step = {}};
    ++*batches_;
    return {
        .scale = static_cast<float>(scale), .adam = true, .step = adam_step_at(adam_, *batches_)};
  }

 private:
  std::vector<std::int64_t> first_user_, first_item_;
  std::optional<double> clip_norm_;
  AdamSettings adam_;
  std::int64_t* batches_;
  MfMoments moments_;
};

// One epoch; Index is the type of order.
template <class Index>
class Epoch {
 public:
  Epoch(const MfRequest& request, const MfKernel& kernel, const MfTables& tables,
        const MfMoments& moments, const MfRating* ratings)
      : settings_(request.settings),
        kernel_(kernel),
        ratings_(ratings),
        order_(request.order.const_data_ptr<Index>()),
        visits_(request.visits),
        batch_(std::min(request.batch_size, std::max<std::int64_t>(request.visits, 1))),
        threads_(torch::stable::get_num_threads()),
        ring_(ring_size(batch_)),
        mask_(static_cast<std::int64_t>(ring_size(batch_)) - 1),
        bias_rows_(static_cast<std::size_t>(batch_)),
        error_(bias_rows_),
        user_step_(bias_rows_ * static_cast<std::size_t>(kernel.stride)),
        item_step_(bias_rows_ * static_cast<std::size_t>(kernel.stride)),
        user_bias_step_(request.user_bias ? bias_rows_ : 0),
        item_bias_step_(request.item_bias ? bias_rows_ : 0),
        tables_(tables),
        steps_{error_.data(), user_step_.data(), item_step_.data(), user_bias_step_.data(),
               item_bias_step_.data()} {
    if (request.gathers()) gradients_.emplace(request, moments);
    if (request.gathers()) settings_.lr = 1.0f;
  }

  double run() {
    double loss = 0.0;
    Slices slices(visits_);
    for (std::int64_t begin = 0; begin < visits_; begin += batch_) {
      const std::int64_t end = std::min(begin + batch_, visits_);
      const bool parallel = worth_threads(end - begin);
      const double batch_loss = parallel ? compute_parallel(begin, end) : compute(begin, end);
      if (!std::isfinite(batch_loss)) report_error(begin, end);
      loss += batch_loss;
      if (gradients_) {
        if (!update(begin, end, parallel)) report_table(begin, end);
      } else if (parallel) {
        torch::stable::parallel_for(0, threads_, 1, [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t part = first; part < last; ++part)
            kernel_.apply(tables_, visits(), steps_, begin, begin, end,
                          static_cast<std::uint32_t>(part), threads_);
        });
      } else {
        apply(begin, end);
      }
      slices.passed(end);
    }
    return loss;
  }

 private:
  static std::size_t ring_size(std::int64_t batch) {
    return std::bit_ceil(static_cast<std::size_t>(batch + std::min(batch, kMostStaged) + kStaged));
  }

  MfVisits visits() { return {ring_.data(), mask_, staged_}; }

  void stage(std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      if (at + kRequested < visits_) __builtin_prefetch(ratings_ + order_[at + kRequested]);
      ring_[at & mask_] = ratings_[order_[at]];
    }
  }

  double compute(std::int64_t begin, std::int64_t end) {
    stage_until(std::min(end + kStaged, visits_));
    double loss = 0.0;
    for (std::int64_t at = begin; at < end; at += kBlock)
      loss += kernel_.compute(tables_, visits(), settings_, steps_, begin, at,
                              std::min(at + kBlock, end));
    return loss;
  }

  // The ratings of the next batch come in here: computing waits for rows of the tables already.
  void apply(std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t block_end = std::min(at + kBlock, end);
      kernel_.apply(tables_, visits(), steps_, begin, at, block_end, 0, 1);
      stage_until(std::min(block_end + std::min(batch_, kMostStaged) + kStaged, visits_));
    }
  }

  void stage_until(std::int64_t end) {
    if (end <= staged_) return;
    stage(staged_, end);
    staged_ = end;
  }

  double compute_parallel(std::int64_t begin, std::int64_t end) {
    const std::int64_t first = staged_;
    torch::stable::parallel_for(
        0, end - first, kParallelGrain,
        [&](std::int64_t from, std::int64_t to) { stage(first + from, first + to); });
    staged_ = end;
    return sum_blocks(begin, end, true, [&](std::int64_t from, std::int64_t to) {
      return kernel_.compute(tables_, visits(), settings_, steps_, begin, from, to);
    });
  }

  // The sum of term(from, to) over blocks of visits, in their order.
  template <class Term>
  static double sum_blocks(std::int64_t begin, std::int64_t end, bool parallel, const Term& term) {
    double total = 0.0;
    if (!parallel) {
      for (std::int64_t at = begin; at < end; at += kBlock)
        total += term(at, std::min(at + kBlock, end));
      return total;
    }
    const std::int64_t blocks = (end - begin + kBlock - 1) / kBlock;
    std::vector<double> terms(static_cast<std::size_t>(blocks));
    torch::stable::parallel_for(
        0, blocks, kParallelGrain / kBlock, [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t block = from; block < to; ++block) {
            const std::int64_t at = begin + block * kBlock;
            terms[static_cast<std::size_t>(block)] = term(at, std::min(at + kBlock, end));
          }
        });
    for (const double block : terms) total += block;
    return total;
  }

  // Takes the gradients of a batch as wholes; returns whether what they left is finite.
  bool update(std::int64_t begin, std::int64_t end, bool parallel) {
    const MfFirstVisits first = gradients_->first();
    const auto gather = [&](std::int64_t part, std::int64_t parts) {
      kernel_.gather(tables_, visits(), steps_, first, begin, begin, end,
                     static_cast<std::uint32_t>(part), static_cast<std::uint32_t>(parts));
    };
    if (parallel)
      torch::stable::parallel_for(0, threads_, 1, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t part = from; part < to; ++part) gather(part, threads_);
      });
    else
      gather(0, 1);
    double square_sum = 0.0;
    if (gradients_->clips())
      square_sum = sum_blocks(begin, end, parallel, [&](std::int64_t from, std::int64_t to) {
        return kernel_.square_sum(tables_, visits(), steps_, first, begin, from, to);
      });
    const MfUpdate how = gradients_->next(square_sum);
    const bool finite = all_of(end - begin, parallel, [&](std::int64_t from, std::int64_t to) {
      return kernel_.update(tables_, gradients_->moments(), visits(), steps_, first, how, begin,
                            begin + from, begin + to);
    });
    return finite;
  }

  [[noreturn]] void report_error(std::int64_t begin, std::int64_t end) {
    std::int64_t at = begin;
    while (at + 1 < end && std::isfinite(error_[at - begin])) ++at;
    throw_not_finite("error", begin / batch_, at, static_cast<std::int64_t>(order_[at]));
  }

  [[noreturn]] void report_table(std::int64_t begin, std::int64_t end) {
    std::int64_t at = begin;
    while (at + 1 < end && visited_rows_finite(ratings_[order_[at]])) ++at;
    throw_not_finite("result", begin / batch_, at, static_cast<std::int64_t>(order_[at]));
  }

  bool visited_rows_finite(const MfRating& visit) const {
    const MfMoments& moments = gradients_->moments();
    return row_finite(tables_.user, visit.user) && row_finite(tables_.item, visit.item) &&
           row_finite(moments.user_second, visit.user) &&
           row_finite(moments.item_second, visit.item);
  }

  bool row_finite(const MfTable& table, std::int64_t i) const {
    if (table.factors == nullptr) return true;
    const float* row = table.factors + i * table.stride;
    return std::all_of(row, row + tables_.d, [](float x) { return std::isfinite(x); }) &&
           (table.bias == nullptr || std::isfinite(table.bias[i * table.column_stride]));
  }

  MfSettings settings_;
  MfKernel kernel_;
  const MfRating* ratings_;
  const Index* order_;
  std::int64_t visits_, batch_;
  std::uint32_t threads_;
  std::int64_t staged_ = 0;
  Scratch<MfRating> ring_;
  std::int64_t mask_;
  std::size_t bias_rows_;
  Scratch<float> error_, user_step_, item_step_, user_bias_step_, item_bias_step_;
  MfTables tables_;
  MfSteps steps_;
  std::optional<Gradients> gradients_;
};

MfTables tables_of(const MfRequest& request) {
  const auto read = [](const auto& column) { return MfRequest::read(column); };
  return {.user = {request.user.mutable_data_ptr<float>(), request.d,
                   MfRequest::write(request.user_bias), read(request.user_inverse_count), 1},
          .item = {request.item.mutable_data_ptr<float>(), request.d,
                   MfRequest::write(request.item_bias), read(request.item_inverse_count), 1},
          .d = request.d};
}

MfMoments moments_of(const MfRequest& request) {
  if (!request.adam_step) return {};
  const auto table = [&](const std::optional<Tensor>& moment, const std::optional<Tensor>& bias) {
    return MfTable{MfRequest::write(moment), request.d, MfRequest::write(bias), nullptr, 1};
  };
  const MfMomentTensors &user = request.user_moments, &item = request.item_moments;
  return {.user_first = table(user.first, user.bias_first),
          .user_second = table(user.second, user.bias_second),
          .item_first = table(item.first, item.bias_first),
          .item_second = table(item.second, item.bias_second)};
}

template <class Index>
double run_epoch(const MfRequest& request) {
  const bool threads = worth_threads(std::min(request.batch_size, request.visits));
  check_order(request.order.const_data_ptr<Index>(), request.visits, request.rows, threads);
  Scratch<MfRating> ratings(static_cast<std::size_t>(request.rows));
  gather_ratings(request, threads, ratings.data());
  MfTables tables = tables_of(request);
  std::optional<PaddedTable> user, item;
  if (request.visits >= kVisitsWorthPadding * (request.n_users + request.n_items)) {
    tables.user = user.emplace(tables.user, request.n_users, request.d).view();
    tables.item = item.emplace(tables.item, request.n_items, request.d).view();
  }
  return Epoch<Index>(request, pick_kernel(request), tables, moments_of(request), ratings.data())
      .run();
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
