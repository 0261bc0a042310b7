// combine(): one launch over all items, whatever their dtypes.
#include "cuda/combine.cuh"

#include <algorithm>

#include "cuda/launch.cuh"
#include "gradsim/gpu.h"

namespace gradsim::gpu {

namespace {

// Columns of an item: nothing but speed depends on it. Small enough to occupy every processor, large enough to hide
// that a block looks for its item and its rows first.
int64_t combine_chunk(int64_t columns) { return columns < (int64_t(1) << 22) ? 1024 : 4096; }

// Items in reverse: what the Gramian has read last is still in L2.
__global__ void __launch_bounds__(kCombineThreads, kCombineBlocks)
    combine_kernel(Layout g, int64_t chunk, Dtype dtype_of_buffer, const double* weights) {
  GRADSIM_DYNAMIC_SHARED(char, shared);
  const Item item = find_item(g, chunk, int64_t(gridDim.x) - 1 - blockIdx.x, dtype_of_buffer);
  const double* const w = weights + item.group * g.tasks;
  with_format(item.dtype, [&](auto format) { combine_item<decltype(format)>(g, item, w, shared); });
}

}  // namespace

void combine(const Layout& g, const double* weights, Stream stream) {
  const int64_t chunk = combine_chunk(g.columns), items = item_count(g, chunk);
  if (items == 0 || g.columns == 0) return;
  const size_t shared_bytes = combine_shared_bytes(g.tasks);
  allow_shared(combine_kernel, shared_bytes);
  GRADSIM_LAUNCH(combine_kernel, grid_of(items), kCombineThreads, shared_bytes, stream, g, chunk, some_dtype(g),
                 weights);
}

}  // namespace gradsim::gpu
