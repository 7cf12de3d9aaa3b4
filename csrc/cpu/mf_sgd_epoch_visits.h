// The ratings of an epoch, in the order in which they are visited.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <thread>

#include "cpu/mf_sgd_epoch.h"
#include "cpu/scratch.h"

namespace scdr {

// The ratings in an order that jumps about in them; Index is the type of order.
template <class Index>
class OrderedRatings {
 public:
  OrderedRatings(const MfRating* ratings, const Index* order, std::int64_t visits)
      : ratings_(ratings), order_(order), visits_(visits) {}

  std::int64_t visits() const { return visits_; }
  const MfRating& operator[](std::int64_t at) const { return ratings_[order_[at]]; }

  // Visit number `at` goes to out[at & mask].
  void copy(std::int64_t begin, std::int64_t end, MfRating* out, std::int64_t mask) const {
    for (std::int64_t at = begin; at < end; ++at) {
      if (at + kAhead < visits_) __builtin_prefetch(ratings_ + order_[at + kAhead]);
      out[at & mask] = (*this)[at];
    }
  }

 private:
  // Visits whose rating is on its way to the cache.
  static constexpr std::int64_t kAhead = 256;

  const MfRating* ratings_;
  const Index* order_;
  std::int64_t visits_;
};

// A second thread that brings in the visits ahead of the epoch, piece by piece, since bringing them
// in is mostly waiting for memory. The epoch takes a piece if it is there, and never waits for one:
// it comes to its end whatever the second thread does, or if there is none.
template <class Index>
class VisitsAhead {
 public:
  static constexpr std::int64_t kPiece = 256;

  explicit VisitsAhead(const OrderedRatings<Index>& ratings)
      : ratings_(ratings), pieces_(kPieces * kPiece) {}

  // The second thread. Returns when the epoch is over, or where it seems not to have begun: it
  // might come after this call, on the same thread.
  void run() {
    int waited = 0;
    for (std::int64_t piece = 0; piece * kPiece < ratings_.visits();) {
      const std::int64_t needed = needed_.load(std::memory_order_acquire);
      if (needed == kOver) return;
      if (piece >= std::max(needed, kFirst) + kPieces) {
        if (needed == kNotBegun) return;
        pause(waited++);
        continue;
      }
      piece = std::max(piece, needed + 1);
      const std::int64_t begin = piece * kPiece;
      const std::int64_t end = std::min(begin + kPiece, ratings_.visits());
      if (begin < end) ratings_.copy(begin, end, pieces_.data(), kPieces * kPiece - 1);
      brought(piece).store(piece + 1, std::memory_order_release);
      ++piece;
      waited = 0;
    }
  }

  // The others are for the thread of the epoch. It needs no piece below this one any more.
  void need_from(std::int64_t piece) { needed_.store(piece, std::memory_order_release); }
  void over() { need_from(kOver); }

  // The visits of a piece, or null where it is not there.
  const MfRating* find(std::int64_t piece) {
    if (brought(piece).load(std::memory_order_acquire) != piece + 1) return nullptr;
    return pieces_.data() + piece % kPieces * kPiece;
  }

 private:
  static constexpr std::int64_t kPieces = 64;
  static constexpr std::int64_t kFirst = 0, kNotBegun = -1, kOver = -2;

  // The number of the piece that lies where this one belongs, plus 1; 0 is none.
  std::atomic<std::int64_t>& brought(std::int64_t piece) {
    return brought_[static_cast<std::size_t>(piece % kPieces)];
  }

  static void pause(int waited) {
    if (waited > 1000) {
      std::this_thread::yield();
      return;
    }
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  const OrderedRatings<Index>& ratings_;
  Scratch<MfRating> pieces_;
  std::array<std::atomic<std::int64_t>, kPieces> brought_{};
  alignas(64) std::atomic<std::int64_t> needed_{kNotBegun};  // in a cache line of its own
};

// A ring of the visits around the batch in work.
template <class Index>
class VisitRing {
 public:
  // helped: another thread may call help().
  VisitRing(const OrderedRatings<Index>& ratings, std::int64_t batch, bool helped)
      : ratings_(ratings),
        most_staged_(std::min(batch, kMostStaged) + kStaged),
        ring_(std::bit_ceil(
            static_cast<std::size_t>(batch + most_staged_ + VisitsAhead<Index>::kPiece))),
        mask_(static_cast<std::int64_t>(ring_.size()) - 1) {
    if (helped) ahead_.emplace(ratings);
  }

  void begin() {
    if (ahead_) ahead_->need_from(0);
  }
  void over() {
    if (ahead_) ahead_->over();
  }
  void help() { ahead_->run(); }

  MfVisits view() { return {ring_.data(), mask_, staged_}; }

  // Brings in the visits before `end`, and those that the kernel looks ahead to.
  void stage_batch(std::int64_t end) { stage_until(end + kStaged); }
  // What the batch after the one at `at` begins with.
  void stage_ahead(std::int64_t at) { stage_until(at + most_staged_); }

  // The visits before `end`, by parallel_for(count, body).
  template <class ParallelFor>
  void stage_parallel(std::int64_t end, const ParallelFor& parallel_for) {
    const std::int64_t first = staged_;
    parallel_for(end - first, [&](std::int64_t from, std::int64_t to) {
      ratings_.copy(first + from, first + to, ring_.data(), mask_);
    });
    staged_ = end;
  }

 private:
  static constexpr std::int64_t kStaged = 128;
  static constexpr std::int64_t kMostStaged = 1024;

  void stage_until(std::int64_t end) {
    end = std::min(end, ratings_.visits());
    if (ahead_) {
      while (staged_ < end) stage_piece(end);
    } else if (staged_ < end) {
      ratings_.copy(staged_, end, ring_.data(), mask_);
      staged_ = end;
    }
  }

  // Up to the end of the piece that is due, or to `end`.
  void stage_piece(std::int64_t end) {
    constexpr std::int64_t size = VisitsAhead<Index>::kPiece;
    const std::int64_t piece = staged_ / size;
    const std::int64_t piece_end = std::min((piece + 1) * size, ratings_.visits());
    const MfRating* visits = staged_ == piece * size ? ahead_->find(piece) : nullptr;
    if (visits != nullptr) {
      const std::int64_t count = piece_end - staged_;
      std::memcpy(ring_.data() + (staged_ & mask_), visits,
                  static_cast<std::size_t>(count) * sizeof(MfRating));
      staged_ = piece_end;
    } else {
      end = std::min(end, piece_end);
      ratings_.copy(staged_, end, ring_.data(), mask_);
      staged_ = end;
    }
    if (staged_ == piece_end) ahead_->need_from(piece + 1);
  }

  const OrderedRatings<Index>& ratings_;
  std::optional<VisitsAhead<Index>> ahead_;
  std::int64_t most_staged_;
  Scratch<MfRating> ring_;
  std::int64_t mask_;
  std::int64_t staged_ = 0;
};

}  // namespace scdr
