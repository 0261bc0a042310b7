// The rows of one warp's tile: which tasks have a gradient in the segment, and whether vectors can be loaded from them.
#pragma once

#include "cuda/device.cuh"
#include "cuda/items.cuh"

namespace gradsim::gpu {

constexpr int kVectorBytes = 16;  // one load of a lane

struct TileRows {
  const char* const* table;  // shared memory: the left rows, then the right rows
  uint32_t left, right;      // bit r: row r has a gradient
  bool aligned;              // all rows meet a multiple of kVectorBytes at the same column
  int64_t head;              // columns before it

  // volatile: registers are too few to hold the pointers from step to step
  __device__ const char* pointer(int row) const { return const_cast<const char* const volatile*>(table)[row]; }

  __device__ bool left_has(int row) const { return left >> row & 1; }
  __device__ bool right_has(int row) const { return right >> row & 1; }
};

// A warp finds the tasks left0, left0 + 1, ... of a and right0, ... of b in the item's segment. A row without a
// gradient gets the pointer of one that has one: loads need no test, and what comes out for its pairs is not used.
// `table`: the warp's kLeft + kRight pointers of shared memory.
template <int kLeft, int kRight>
__device__ inline TileRows find_rows(const Layout& a, int64_t left0, const Layout& b, int64_t right0, const Item& item,
                                     const char** table) {
  static_assert(kLeft <= int(kWarp) && kRight <= int(kWarp), "a lane for each row");
  const int lane = threadIdx.x % kWarp;
  const int64_t bytes = bytes_of_element(item.dtype);
  const auto row = [&](const Layout& g, int64_t task, bool within) -> const char* {
    return within && task < g.tasks ? row_of(g, item.segment, task, bytes) : nullptr;
  };
  const char* const left = row(a, left0 + lane, lane < kLeft);
  const char* const right = row(b, right0 + lane, lane < kRight);
  TileRows rows;
  rows.left = __ballot_sync(kAllLanes, left != nullptr);
  rows.right = __ballot_sync(kAllLanes, right != nullptr);
  const char* const some = rows.left ? left : right;
  const int where = rows.left ? __ffs(int(rows.left)) - 1 : rows.right ? __ffs(int(rows.right)) - 1 : 0;
  const char* const present = reinterpret_cast<const char*>(
      __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(some), where));  // null: there is no row at all
  const auto past = [&](const char* at) {
    return unsigned(reinterpret_cast<unsigned long long>((at ? at : present) + item.begin * bytes) % kVectorBytes);
  };
  rows.aligned = __all_sync(kAllLanes, past(left) == past(present) && past(right) == past(present));
  rows.head = (kVectorBytes - past(present)) % kVectorBytes / bytes;
  if (lane < kLeft) table[lane] = left ? left : present;
  if (lane < kRight) table[kLeft + lane] = right ? right : present;
  __syncwarp();
  rows.table = table;
  return rows;
}

}  // namespace gradsim::gpu
