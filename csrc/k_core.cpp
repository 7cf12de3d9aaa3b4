#include "k_core.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace scdr {
namespace {

// Users or items: how many rows each still has, and which rows they are (CSR).
class Side {
 public:
  Side(const std::int32_t* ids, std::int64_t rows, std::int64_t n)
      : ids_(ids), rows_(rows), count_(static_cast<std::size_t>(n), 0) {
    for (std::int64_t row = 0; row < rows; ++row) ++count_[id(row)];
  }

  // Called once, before the first removal.
  void index_rows() {
    begin_.resize(count_.size() + 1, 0);
    for (std::size_t i = 0; i < count_.size(); ++i) begin_[i + 1] = begin_[i] + count_[i];
    row_of_.resize(static_cast<std::size_t>(rows_));
    std::vector<std::uint32_t> next(begin_.begin(), begin_.end() - 1);
    for (std::int64_t row = 0; row < rows_; ++row)
      row_of_[next[id(row)]++] = static_cast<std::uint32_t>(row);
  }

  std::size_t id(std::int64_t row) const { return static_cast<std::size_t>(ids_[row]); }
  std::size_t size() const { return count_.size(); }
  std::uint32_t count(std::size_t i) const { return count_[i]; }
  std::uint32_t remove_one(std::size_t i) { return --count_[i]; }
  const std::uint32_t* begin(std::size_t i) const { return row_of_.data() + begin_[i]; }
  const std::uint32_t* end(std::size_t i) const { return row_of_.data() + begin_[i + 1]; }

 private:
  const std::int32_t* ids_;
  std::int64_t rows_;
  std::vector<std::uint32_t> count_, begin_, row_of_;
};

}  // namespace

void k_core(const std::int32_t* users, const std::int32_t* items, std::int64_t rows,
            std::int64_t n_users, std::int64_t n_items, std::int64_t k, bool* keep) {
  std::fill(keep, keep + rows, true);
  Side user(users, rows, n_users), item(items, rows, n_items);
  // Nodes to take away: users as 0 .. n_users - 1, items after them. Each enters once: at the start
  // or when a removal takes its count from k to k - 1.
  std::vector<std::size_t> queue;
  const auto too_few = [k](std::uint32_t count) { return count > 0 && std::int64_t{count} < k; };
  for (std::size_t u = 0; u < user.size(); ++u)
    if (too_few(user.count(u))) queue.push_back(u);
  for (std::size_t i = 0; i < item.size(); ++i)
    if (too_few(item.count(i))) queue.push_back(user.size() + i);
  if (queue.empty()) return;

  user.index_rows();
  item.index_rows();
  while (!queue.empty()) {
    const std::size_t node = queue.back();
    queue.pop_back();
    const bool is_user = node < user.size();
    const Side& own = is_user ? user : item;
    Side& other = is_user ? item : user;
    const std::size_t index = is_user ? node : node - user.size();
    const std::size_t other_base = is_user ? user.size() : 0;
    for (const std::uint32_t* row = own.begin(index); row != own.end(index); ++row) {
      if (!keep[*row]) continue;
      keep[*row] = false;
      const std::size_t neighbour = other.id(*row);
      if (std::int64_t{other.remove_one(neighbour)} == k - 1)
        queue.push_back(other_base + neighbour);
    }
  }
}

}  // namespace scdr
