// Work on torch's threads, or on this one.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <vector>

namespace scdr {

// body(begin, end) over [0, count), at least `grain` at a time on a thread of its own.
template <class Body>
void for_ranges(std::int64_t count, std::int64_t grain, bool threads, const Body& body) {
  if (threads)
    torch::stable::parallel_for(0, count, grain, body);
  else
    body(std::int64_t{0}, count);
}

// The same, and whether body returned true everywhere.
template <class Body>
bool all_ranges(std::int64_t count, std::int64_t grain, bool threads, const Body& body) {
  std::atomic<bool> good{true};
  for_ranges(count, grain, threads, [&](std::int64_t begin, std::int64_t end) {
    if (!body(begin, end)) good.store(false, std::memory_order_relaxed);
  });
  return good.load();
}

// Both, at the same time where `threads` and torch has another one to spare: neither may wait for
// the other to begin. `first` runs on this thread. Throws what they throw.
template <class First, class Second>
void both(bool threads, const First& first, const Second& second) {
  std::exception_ptr raised[2];
  const auto run = [&raised](const auto& body, int which) {
    try {
      body();
    } catch (...) {
      raised[which] = std::current_exception();
    }
  };
  for_ranges(2, 1, threads, [&](std::int64_t begin, std::int64_t end) {
    if (begin == 0) run(first, 0);
    if (end == 2) run(second, 1);
  });
  for (const std::exception_ptr& error : raised)
    if (error) std::rethrow_exception(error);
}

// The sum of term(begin, end) over blocks of [begin, end), in their order at any number of threads.
template <class Term>
double sum_blocks(std::int64_t begin, std::int64_t end, std::int64_t block, std::int64_t grain,
                  bool threads, const Term& term) {
  double total = 0.0;
  if (!threads) {
    for (std::int64_t at = begin; at < end; at += block)
      total += term(at, std::min(at + block, end));
    return total;
  }
  const std::int64_t blocks = (end - begin + block - 1) / block;
  std::vector<double> terms(static_cast<std::size_t>(blocks));
  for_ranges(blocks, std::max<std::int64_t>(grain / block, 1), true,
             [&](std::int64_t from, std::int64_t to) {
               for (std::int64_t i = from; i < to; ++i) {
                 const std::int64_t at = begin + i * block;
                 terms[static_cast<std::size_t>(i)] = term(at, std::min(at + block, end));
               }
             });
  for (const double part : terms) total += part;
  return total;
}

}  // namespace scdr
