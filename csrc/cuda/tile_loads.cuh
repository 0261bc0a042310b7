// How a lane reads kVectorBytes of a row: as one vector, or element by element at the ends and where rows are not
// aligned.
#pragma once

#include "cuda/device.cuh"
#include "cuda/tile_rows.cuh"

namespace gradsim::gpu {

template <int kBytes>
__device__ inline uint4 load_vector(const char* row, int64_t column) {
  const uint4* const at = reinterpret_cast<const uint4*>(global_memory(row + column * kBytes));
#ifdef GRADSIM_EMULATED
  emulated_expect_aligned(at);
#endif
  return *at;
}

// A lane's part of a run of kLanes * kVectorBytes bytes from column `begin` on, as far as it lies before `end`; zeros
// for the rest, for which the last column is read instead: a load without a branch. A lane reads every kLanes-th
// column, so that neighbouring lanes read neighbouring columns: which columns meet in which lane does not matter as
// long as all rows agree.
template <int kBytes, int kLanes>
__device__ inline uint4 load_elements(const char* row, int64_t begin, int64_t end, int lane) {
  const int last = int(end - begin < (1 << 20) ? end - begin : 1 << 20) - 1;  // of the columns from `begin`
  const char* const start = row + begin * kBytes;
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int e = 0; e < kVectorBytes / kBytes; ++e) {
    const int column = lane + e * kLanes;
    const char* const from = global_memory(start + (column < last ? column : last) * kBytes);
    if constexpr (kBytes == 2) {
      const uint32_t x = *reinterpret_cast<const uint16_t*>(from);
      words[e / 2] |= (column <= last ? x : 0) << e % 2 * 16;
    } else if constexpr (kBytes == 4) {
      const uint32_t x = *reinterpret_cast<const uint32_t*>(from);
      words[e] = column <= last ? x : 0;
    } else {
      const uint2 x = *reinterpret_cast<const uint2*>(from);
      words[2 * e] = column <= last ? x.x : 0, words[2 * e + 1] = column <= last ? x.y : 0;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace gradsim::gpu
