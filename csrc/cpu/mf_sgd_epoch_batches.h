// An epoch of mf_sgd_epoch_ on the CPU, batch after batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "cpu/finite.h"
#include "cpu/mf_sgd_epoch.h"
#include "cpu/mf_sgd_epoch_gradients.h"
#include "cpu/mf_sgd_epoch_visits.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "mf_sgd_epoch_request.h"
#include "slices.h"

namespace scdr {

// What an epoch uses torch's threads for. Where it is nothing they are left asleep: once woken they
// spin for a while, beside the one that works. Small batches wake them once an epoch, since each
// time costs as much as the slowest to come.
struct EpochThreads {
  EpochThreads(std::int64_t batch, std::int64_t visits)
      : count(visits >= kWorthwhile ? torch::stable::get_num_threads() : 1),
        batches(count > 1 && batch >= kWorthwhile),
        second(count > 1 && !batches) {}

  std::uint32_t count;
  bool batches;  // the rows of a batch are shared among them
  bool second;   // a second one works beside this one, and brings in the visits

 private:
  // So many visits, or rows of a batch, are worth waking them.
  static constexpr std::int64_t kWorthwhile = 1 << 16;
};

// Index is the type of order.
template <class Index>
class Epoch {
 public:
  Epoch(const MfRequest& request, const MfKernel& kernel, const MfTables& tables,
        const MfRating* ratings, const EpochThreads& threads)
      : settings_(request.settings),
        kernel_(kernel),
        tables_(tables),
        order_(request.order.const_data_ptr<Index>()),
        ratings_(ratings, order_, request.visits),
        visits_(request.visits),
        batch_(std::min(request.batch_size, std::max<std::int64_t>(request.visits, 1))),
        threads_(threads),
        ring_(ratings_, batch_, threads.second),
        error_(static_cast<std::size_t>(batch_)),
        user_step_(error_.size() * static_cast<std::size_t>(kernel.stride)),
        item_step_(user_step_.size()),
        user_bias_step_(request.user_bias ? error_.size() : 0),
        item_bias_step_(request.item_bias ? error_.size() : 0),
        steps_{error_.data(), user_step_.data(), item_step_.data(), user_bias_step_.data(),
               item_bias_step_.data()} {
    if (!request.gathers()) return;
    gradients_.emplace(request);
    settings_.lr = 1.0f;  // the steps are gradients
  }

  // Returns the sum of the squared errors.
  double run() {
    Slices slices(visits_);  // knows the hook of the thread that makes it
    if (!threads_.second) return run_batches(slices);
    double loss = 0.0;
    both(
        true,
        [&] {
          const Over over{ring_};
          loss = run_batches(slices);
        },
        [&] { ring_.help(); });
    return loss;
  }

  // Throws where the last visit to a row has left it not finite.
  void check_results() const {
    for (std::int64_t at = visits_ - 1; at >= 0; --at)
      if (!visited_finite(at)) report("result", at);
  }

 private:
  // Losses are summed over blocks of so many visits and then over blocks.
  static constexpr std::int64_t kBlock = 64;
  static constexpr std::int64_t kParallelGrain = 1024;

  // Sends the second thread home, by whatever way the epoch ends.
  struct Over {
    VisitRing<Index>& ring;
    ~Over() { ring.over(); }
  };

  double run_batches(Slices& slices) {
    double loss = 0.0;
    ring_.begin();
    for (std::int64_t begin = 0; begin < visits_; begin += batch_) {
      const std::int64_t end = std::min(begin + batch_, visits_);
      const double batch_loss = compute(begin, end);
      if (!std::isfinite(batch_loss)) report_error(begin, end);
      loss += batch_loss;
      if (gradients_)
        update(begin, end);
      else
        apply(begin, end);
      slices.passed(end);
    }
    return loss;
  }

  double compute(std::int64_t begin, std::int64_t end) {
    if (threads_.batches)
      ring_.stage_parallel(end, [](std::int64_t count, const auto& body) {
        for_ranges(count, kParallelGrain, true, body);
      });
    else
      ring_.stage_batch(end);
    return sum_blocks(begin, end, [&](std::int64_t from, std::int64_t to) {
      return kernel_.compute(tables_, ring_.view(), settings_, steps_, begin, from, to);
    });
  }

  void apply(std::int64_t begin, std::int64_t end) {
    const auto part = [&](std::int64_t from, std::int64_t to, std::uint32_t number,
                          std::uint32_t parts) {
      kernel_.apply(tables_, ring_.view(), steps_, begin, from, to, number, parts);
    };
    if (threads_.batches)
      return for_parts([&](auto number, auto parts) { part(begin, end, number, parts); });
    // The ratings of the next batch come in here: computing waits for rows of the tables already.
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t block_end = std::min(at + kBlock, end);
      part(at, block_end, 0, 1);
      ring_.stage_ahead(block_end);
    }
  }

  void update(std::int64_t begin, std::int64_t end) {
    const MfFirstVisits first = gradients_->first();
    const MfVisits visits = ring_.view();
    const auto gather = [&](std::uint32_t part, std::uint32_t parts) {
      kernel_.gather(tables_, visits, steps_, first, begin, begin, end, part, parts);
    };
    if (threads_.batches)
      for_parts(gather);
    else
      gather(0, 1);
    double square_sum = 0.0;
    if (gradients_->clips())
      square_sum = sum_blocks(begin, end, [&](std::int64_t from, std::int64_t to) {
        return kernel_.square_sum(tables_, visits, steps_, first, begin, from, to);
      });
    const MfUpdate how = gradients_->next(square_sum);
    const bool finite = all_ranges(
        end - begin, kParallelGrain, threads_.batches, [&](std::int64_t from, std::int64_t to) {
          return kernel_.update(tables_, gradients_->moments(), visits, steps_, first, how, begin,
                                begin + from, begin + to);
        });
    if (!finite) report_result(begin, end);
    gradients_->applied();
  }

  // body(part, parts) for each part of the rows of the tables.
  template <class Body>
  void for_parts(const Body& body) const {
    for_ranges(threads_.count, 1, true, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t part = from; part < to; ++part)
        body(static_cast<std::uint32_t>(part), threads_.count);
    });
  }

  template <class Term>
  double sum_blocks(std::int64_t begin, std::int64_t end, const Term& term) const {
    return scdr::sum_blocks(begin, end, kBlock, kParallelGrain, threads_.batches, term);
  }

  [[noreturn]] void report_error(std::int64_t begin, std::int64_t end) {
    std::int64_t at = begin;
    while (at + 1 < end && std::isfinite(error_[at - begin])) ++at;
    report("error", at);
  }

  [[noreturn]] void report_result(std::int64_t begin, std::int64_t end) const {
    std::int64_t at = begin;
    while (at + 1 < end && visited_finite(at)) ++at;
    report("result", at);
  }

  [[noreturn]] void report(const char* what, std::int64_t at) const {
    throw_not_finite(what, at / batch_, at, static_cast<std::int64_t>(order_[at]));
  }

  // Of the visit's rows in the tables, and in Adam's second moments: the first are smaller.
  bool visited_finite(std::int64_t at) const {
    const MfRating& visit = ratings_[at];
    const MfMoments moments = gradients_ ? gradients_->moments() : MfMoments{};
    return row_finite(tables_.user, visit.user) && row_finite(tables_.item, visit.item) &&
           row_finite(moments.user_second, visit.user) &&
           row_finite(moments.item_second, visit.item);
  }

  bool row_finite(const MfTable& table, std::int64_t i) const {
    return table.factors == nullptr ||
           (all_finite(table.factors + i * table.stride, tables_.d) &&
            (table.bias == nullptr || std::isfinite(table.bias[i * table.column_stride])));
  }

  MfSettings settings_;
  MfKernel kernel_;
  MfTables tables_;
  const Index* order_;
  OrderedRatings<Index> ratings_;
  std::int64_t visits_, batch_;
  EpochThreads threads_;
  VisitRing<Index> ring_;
  Scratch<float> error_, user_step_, item_step_, user_bias_step_, item_bias_step_;
  MfSteps steps_;
  std::optional<Gradients> gradients_;
};

}  // namespace scdr
