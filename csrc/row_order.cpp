#include "row_order.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <vector>

namespace scdr {
namespace {

constexpr int kDigitBits = 11;
constexpr std::size_t kDigits = std::size_t{1} << kDigitBits;

template <class Key>
struct Row {
  Key key;
  std::uint32_t row;
};

// Rows by ascending key, of which none is larger than `largest`.
template <class Key>
void sort_rows(std::vector<Row<Key>>& rows, std::uint64_t largest) {
  std::vector<Row<Key>> sorted(rows.size());
  for (int shift = 0; shift < 64 && (largest >> shift) != 0; shift += kDigitBits) {
    const auto digit = [shift](Key key) {
      return static_cast<std::size_t>(key >> shift) & (kDigits - 1);
    };
    std::array<std::uint32_t, kDigits> place{};
    for (const Row<Key>& row : rows) ++place[digit(row.key)];
    std::uint32_t before = 0;
    for (std::uint32_t& count : place) {
      const std::uint32_t next = before + count;
      count = before;
      before = next;
    }
    for (const Row<Key>& row : rows) sorted[place[digit(row.key)]++] = row;
    rows.swap(sorted);
  }
}

template <class Key>
void order_by(const std::int64_t* times, std::int64_t n, std::int64_t lowest, std::uint64_t largest,
              std::int64_t* order) {
  std::vector<Row<Key>> rows(static_cast<std::size_t>(n));
  for (std::size_t row = 0; row < rows.size(); ++row)
    rows[row] = {static_cast<Key>(static_cast<std::uint64_t>(times[row]) -
                                  static_cast<std::uint64_t>(lowest)),
                 static_cast<std::uint32_t>(row)};
  sort_rows(rows, largest);
  for (std::size_t place = 0; place < rows.size(); ++place) order[place] = rows[place].row;
}

}  // namespace

void stable_order(const std::int64_t* times, std::int64_t rows, std::int64_t* order) {
  if (rows == 0) return;
  const auto [lowest, highest] = std::minmax_element(times, times + rows);
  const std::uint64_t largest =
      static_cast<std::uint64_t>(*highest) - static_cast<std::uint64_t>(*lowest);
  if (largest <= std::numeric_limits<std::uint32_t>::max())
    order_by<std::uint32_t>(times, rows, *lowest, largest, order);
  else
    order_by<std::uint64_t>(times, rows, *lowest, largest, order);
}

void last_of_pairs(const std::int32_t* users, const std::int32_t* items, std::int64_t rows,
                   std::int64_t n_users, std::int64_t n_items, bool* keep) {
  // the rows of each user one after the other, in their order
  std::vector<std::uint32_t> end(static_cast<std::size_t>(n_users) + 1, 0);
  for (std::int64_t row = 0; row < rows; ++row) ++end[static_cast<std::size_t>(users[row]) + 1];
  for (std::size_t u = 1; u < end.size(); ++u) end[u] += end[u - 1];
  std::vector<std::uint32_t> row_of(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row)
    row_of[end[static_cast<std::size_t>(users[row])]++] = static_cast<std::uint32_t>(row);

  std::vector<std::int32_t> last_user(static_cast<std::size_t>(n_items), -1);
  for (auto row = row_of.crbegin(); row != row_of.crend(); ++row) {
    std::int32_t& user = last_user[static_cast<std::size_t>(items[*row])];
    keep[*row] = user != users[*row];
    user = users[*row];
  }
}

}  // namespace scdr
