// Ids to codes: the different strings of a column, numbered as they are met.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace scdr {

class IdTable {
 public:
  IdTable();

  // codes[i] = the number of ids[i], a new one where it is met first.
  void code(const std::string_view* ids, std::size_t n, std::int32_t* codes);

  std::size_t size() const { return ids_.size(); }
  // Of all that the table holds, in memory.
  std::size_t bytes() const;
  // The ids by number; valid while the table lives.
  const std::vector<std::string_view>& ids() const { return ids_; }
  // Of each id its place among all in the order of their bytes, which of UTF-8 is that of code
  // points.
  std::vector<std::int32_t> ranks() const;

 private:
  struct Slot {
    std::uint32_t tag = 0;   // of the hash
    std::int32_t code = -1;  // -1: free
  };

  std::int32_t find_or_add(std::string_view id, std::uint64_t hash);
  void grow();
  std::string_view kept(std::string_view id);

  std::vector<Slot> slots_;  // a power of two, at most half of them taken; probed one by one
  std::vector<std::string_view> ids_;
  std::vector<std::unique_ptr<char[]>> pages_;  // the text of the ids
  std::size_t page_left_ = 0, text_bytes_ = 0;
  char* page_at_ = nullptr;
};

}  // namespace scdr
