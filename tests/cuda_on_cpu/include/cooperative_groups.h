// The barrier of a grid, and nothing else of cooperative groups.
#pragma once

#include "device.h"

namespace cooperative_groups {

struct grid_group {
  void sync(cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) const {
    cuda_on_cpu::grid_barrier(where);
  }
};
inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
