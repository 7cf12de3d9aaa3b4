// The order of rows in time, and which of them a later one replaces.
#pragma once

#include <cstdint>

namespace scdr {

// order[0 .. rows): the rows by ascending time, those of equal time as they stood. Radix sort:
// O(rows) for each 11 bits that the times span. rows < 2^32.
void stable_order(const std::int64_t* times, std::int64_t rows, std::int64_t* order);

// keep[row] = 1 exactly for the last row of each (user, item). O(rows + n_users + n_items) time and
// memory. Indices are in range; rows < 2^32.
void last_of_pairs(const std::int32_t* users, const std::int32_t* items, std::int64_t rows,
                   std::int64_t n_users, std::int64_t n_items, bool* keep);

}  // namespace scdr
