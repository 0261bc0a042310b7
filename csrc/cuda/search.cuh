// Binary search would wait for memory log2(n) times; a warp that looks at 32 places at once waits log32(n) times.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

// How many of the first n indices satisfy holds(index), which is true up to some index and false from there on (if it
// is not: some number from 0 to n). By all lanes of a warp, alike in all.
template <class Holds>
__device__ int64_t count_leading(int64_t n, const Holds& holds) {
  const int64_t lane = threadIdx.x % kWarp;
  int64_t low = 0, high = n;  // low <= result <= high
  while (low < high) {
    const int64_t width = (high - low + kWarp - 1) / kWarp, probe = low + (lane + 1) * width - 1;
    const unsigned votes = __ballot_sync(kAllLanes, probe < high && holds(probe));
    low += __popc(votes) * width;
    high = low + width - 1 < high ? low + width - 1 : high;
  }
  return low < n ? low : n;
}

}  // namespace gradsim::gpu
