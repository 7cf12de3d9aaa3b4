#include "id_table.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>

namespace scdr {
namespace {

constexpr std::size_t kPage = std::size_t{1} << 16;
constexpr std::size_t kAhead = 32;  // ids whose slots are asked for together

// std::hash may leave the low bits alone
std::uint64_t hash_of(std::string_view id) {
  const std::uint64_t hash = std::hash<std::string_view>{}(id) * 0x9E3779B97F4A7C15U;
  return hash ^ (hash >> 32);
}

std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }

// The first eight bytes, so that numbers compare as the strings do.
std::uint64_t prefix_of(std::string_view id) {
  std::uint64_t prefix = 0;
  for (std::size_t i = 0; i < 8; ++i)
    prefix = (prefix << 8) | (i < id.size() ? static_cast<unsigned char>(id[i]) : 0U);
  return prefix;
}

}  // namespace

IdTable::IdTable() : slots_(1 << 10) {}

void IdTable::code(const std::string_view* ids, std::size_t n, std::int32_t* codes) {
  // Slots, ids and their text lie anywhere in memory: asked for stage by stage, they come together.
  std::array<std::uint64_t, kAhead> hash;
  for (std::size_t first = 0; first < n; first += kAhead) {
    const std::size_t count = std::min(kAhead, n - first);
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = 0; i < count; ++i) {
      hash[i] = hash_of(ids[first + i]);
      __builtin_prefetch(&slots_[hash[i] & mask]);
    }
    for (std::size_t i = 0; i < count; ++i)
      if (const Slot& slot = slots_[hash[i] & mask]; slot.code >= 0)
        __builtin_prefetch(&ids_[static_cast<std::size_t>(slot.code)]);
    for (std::size_t i = 0; i < count; ++i)
      if (const Slot& slot = slots_[hash[i] & mask]; slot.code >= 0)
        __builtin_prefetch(ids_[static_cast<std::size_t>(slot.code)].data());
    for (std::size_t i = 0; i < count; ++i) codes[first + i] = find_or_add(ids[first + i], hash[i]);
  }
}

std::int32_t IdTable::find_or_add(std::string_view id, std::uint64_t hash) {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t place = hash & mask;; place = (place + 1) & mask) {
    Slot& slot = slots_[place];
    if (slot.code < 0) {
      if (ids_.size() >= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::length_error("more than 2^31 - 1 different ids");
      slot = {tag_of(hash), static_cast<std::int32_t>(ids_.size())};
      ids_.push_back(kept(id));
      const std::int32_t code = slot.code;
      if (2 * ids_.size() > slots_.size()) grow();
      return code;
    }
    if (slot.tag == tag_of(hash) && ids_[static_cast<std::size_t>(slot.code)] == id)
      return slot.code;
  }
}

void IdTable::grow() {
  std::vector<Slot> slots(2 * slots_.size());
  const std::size_t mask = slots.size() - 1;
  for (std::size_t code = 0; code < ids_.size(); ++code) {
    const std::uint64_t hash = hash_of(ids_[code]);
    std::size_t place = hash & mask;
    while (slots[place].code >= 0) place = (place + 1) & mask;
    slots[place] = {tag_of(hash), static_cast<std::int32_t>(code)};
  }
  slots_.swap(slots);
}

std::string_view IdTable::kept(std::string_view id) {
  if (id.size() > page_left_) {
    const std::size_t size = std::max(kPage, id.size());
    pages_.push_back(std::make_unique<char[]>(size));
    page_at_ = pages_.back().get();
    page_left_ = size;
    text_bytes_ += size;
  }
  char* const text = page_at_;
  std::copy(id.begin(), id.end(), text);
  page_at_ += id.size();
  page_left_ -= id.size();
  return {text, id.size()};
}

std::size_t IdTable::bytes() const {
  return slots_.capacity() * sizeof(Slot) + ids_.capacity() * sizeof(std::string_view) +
         text_bytes_;
}

std::vector<std::int32_t> IdTable::ranks() const {
  struct Key {
    std::uint64_t prefix;
    std::size_t code;
  };
  std::vector<Key> order(ids_.size());
  for (std::size_t code = 0; code < ids_.size(); ++code)
    order[code] = {prefix_of(ids_[code]), code};
  std::sort(order.begin(), order.end(), [this](const Key& a, const Key& b) {
    return a.prefix != b.prefix ? a.prefix < b.prefix : ids_[a.code] < ids_[b.code];
  });
  std::vector<std::int32_t> rank(ids_.size());
  for (std::size_t place = 0; place < order.size(); ++place)
    rank[order[place].code] = static_cast<std::int32_t>(place);
  return rank;
}

}  // namespace scdr
