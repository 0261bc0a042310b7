// Where the pair (i, j) of tasks stands among the T (T + 1) / 2 of a partial Gramian. Columns of the upper triangle
// follow each other, so that the place does not depend on T.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

GRADSIM_HOST_DEVICE constexpr int64_t pair_count(int64_t tasks) { return tasks * (tasks + 1) / 2; }

// i <= j.
GRADSIM_HOST_DEVICE constexpr int64_t pair_index(int64_t i, int64_t j) { return pair_count(j) + i; }

struct Pair {
  int64_t i, j;
};

GRADSIM_HOST_DEVICE inline Pair pair_at(int64_t index) {
  int64_t j = int64_t((sqrtf(8 * float(index) + 1) - 1) / 2);
  while (pair_count(j) > index) --j;  // the root is rounded
  while (pair_count(j + 1) <= index) ++j;
  return {index - pair_count(j), j};
}

}  // namespace gradsim::gpu
