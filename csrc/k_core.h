// Iterative k-core of the bipartite graph of users and items.
#pragma once

#include <cstdint>

namespace scdr {

// keep[row] = 1 exactly for the rows of the largest subset in which every user and every item that
// occurs has at least k rows. O(rows + n_users + n_items) time and memory. Indices are in range;
// rows < 2^32.
void k_core(const std::int32_t* users, const std::int32_t* items, std::int64_t rows,
            std::int64_t n_users, std::int64_t n_items, std::int64_t k, bool* keep);

}  // namespace scdr
