// M_k = J_k J_k^T and C_k = A_k B_k^T for all groups: each block multiplies the rows over one item of columns, then the
// partial results of a group's items are added up.
#include "cuda/gramian.cuh"

#include <algorithm>

#include "cuda/gramian_tiles.cuh"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/two_pass.cuh"

namespace gradsim::gpu {

namespace {

constexpr int kReduceThreads = 1024, kReduceThreadsOfFew = 256;  // where groups have few items; the sums are the same
constexpr int kTileRows = 32, kSmallRows = 16;                   // of the tiles of many tasks, and of two small sets

// Columns of an item: a function of sizes, never of the device. Small enough to occupy every processor; so large that
// partial results are some hundredths of the traffic and that no group has more than 2,000, or 1,000 large ones.
int64_t chunk_of(int64_t columns, int64_t tasks) {
  const int64_t busy = std::min<int64_t>(8192, std::max<int64_t>(2048, columns / 512));
  const int64_t few = columns / (tasks > 16 ? 1024 : 2048);
  const int64_t chunk = std::max({busy, few, 64 * tasks});
  return (chunk + 63) / 64 * 64;
}

template <class Tile>
__global__ void __launch_bounds__(kGramianThreads, Tile::kBlocksPerMultiprocessor)
    gramian_kernel(Layout g, int64_t chunk, double* partials) {
  __shared__ __align__(16) char shared[Tile::kSharedBytes];
  const Item item = find_item(g, chunk, blockIdx.x, Tile::kDtype);
  if (item.dtype == Tile::kDtype) gramian_of_item<Tile>(g, item, partials + blockIdx.x * pair_count(g.tasks), shared);
}

template <class Format>
__global__ void __launch_bounds__(kGramianThreads, 1) tiled_gramian_kernel(Layout g, int64_t chunk, double* partials) {
  constexpr int kBlocks = kTileRows / 8;
  __shared__ const char* table[kGramianWarps][2 * kTileRows];
  const Tiling tiling = triangle_of<kTileRows>(g.tasks);
  const TileOfWarp mine = tile_of_warp(tiling);
  const Item item = find_item(g, chunk, mine.item, Format::kDtype);
  if (!mine.some || item.dtype != Format::kDtype) return;
  double* const partial = partials + (mine.item * tiling.strips() + mine.strip) * pair_count(g.tasks);
  const auto put = [=](int64_t i, int64_t j, double sum) {
    if (i <= j) partial[pair_index(i, j)] = sum;
  };
  const char** const rows = table[threadIdx.x / kWarp];
  const int64_t left = mine.m * kTileRows, right = mine.n * kTileRows;
  const int strips = int(tiling.strips());
  if (mine.m == mine.n)
    tile_of_item<MmaTile<Format, kBlocks, 0>, 0>(g, left, g, left, item, mine.strip, strips, rows, put);
  else
    tile_of_item<MmaTile<Format, kBlocks, kBlocks>, kTileRows>(g, left, g, right, item, mine.strip, strips, rows, put);
}

template <class Format, int kSize>
__global__ void __launch_bounds__(kGramianThreads, 1)
    cross_gramian_kernel(Layout a, Layout b, int64_t chunk, double* partials) {
  __shared__ const char* table[kGramianWarps][2 * kSize];
  const Tiling tiling = rectangle_of<kSize>(a.tasks, b.tasks);
  const TileOfWarp mine = tile_of_warp(tiling);
  const Item item = find_item(a, chunk, mine.item, Format::kDtype);
  if (!mine.some || item.dtype != Format::kDtype) return;
  double* const partial = partials + (mine.item * tiling.strips() + mine.strip) * a.tasks * b.tasks;
  tile_of_item<MmaTile<Format, kSize / 8, kSize / 8>, kSize>(
      a, mine.m * kSize, b, mine.n * kSize, item, mine.strip, int(tiling.strips()), table[threadIdx.x / kWarp],
      [=](int64_t i, int64_t j, double sum) { partial[i * b.tasks + j] = sum; });
}

// A block for each group and run of kWarp values; `strips` partial results an item.
// Sets counters [groups], if there are any, to 0 for the launch that follows.
__global__ void __launch_bounds__(kReduceThreads, 1)
    reduce_kernel(Layout g, int64_t chunk, int64_t strips, int64_t values, bool triangle, const double* partials,
                  double* result, unsigned* counters) {
  __shared__ __align__(16) char shared[kSumSharedBytes];
  const int64_t runs = (values + kWarp - 1) / kWarp, k = blockIdx.x / runs;
  const int64_t first = first_item_of_group(g, chunk, k) * strips, last = first_item_of_group(g, chunk, k + 1) * strips;
  if (counters && blockIdx.x % runs == 0 && threadIdx.x == 0) counters[k] = 0;
  sum_items(partials, first, last, values, blockIdx.x % runs * kWarp, shared, [=](int64_t index, double sum) {
    if (triangle) {
      double* const M = result + k * g.tasks * g.tasks;
      const Pair pair = pair_at(index);
      M[pair.i * g.tasks + pair.j] = M[pair.j * g.tasks + pair.i] = sum;
    } else {
      result[k * values + index] = sum;
    }
  });
}

void reduce(const Layout& g, int64_t chunk, int64_t strips, int64_t values, bool triangle, const double* partials,
            double* result, unsigned* counters, Stream stream) {
  const int64_t blocks = g.groups * ((values + kWarp - 1) / kWarp);
  if (blocks == 0) return;
  const int threads = item_count(g, chunk) * strips < 32 * g.groups ? kReduceThreadsOfFew : kReduceThreads;
  GRADSIM_LAUNCH(reduce_kernel, grid_of(blocks), threads, 0, stream, g, chunk, strips, values, triangle, partials,
                 result, counters);
}

// call(Format()) for each dtype that occurs.
template <class Call>
void for_each_format(const Layout& g, Call&& call) {
  const auto has = [&](Dtype dtype) { return (g.dtypes >> int(dtype) & 1) != 0; };
  if (has(Dtype::kFloat16)) call(Float16());
  if (has(Dtype::kBFloat16)) call(BFloat16());
  if (has(Dtype::kFloat32)) call(SplitFloat32());
  if (has(Dtype::kFloat64)) call(Float64());
}

Tiling rectangle(const Layout& a, const Layout& b) {
  return a.tasks <= kSmallRows && b.tasks <= kSmallRows ? rectangle_of<kSmallRows>(a.tasks, b.tasks)
                                                        : rectangle_of<kTileRows>(a.tasks, b.tasks);
}

int64_t strips_of(const Layout& g) { return g.tasks <= kSmallTasks ? 1 : triangle_of<kTileRows>(g.tasks).strips(); }

// The partial results of all items.
void gramian_partials(const Layout& g, int64_t chunk, double* partials, Stream stream) {
  const int64_t items = item_count(g, chunk);
  if (items == 0) return;
  for_each_format(g, [&](auto format) {
    using Format = decltype(format);
    if (g.tasks <= kSmallTasks) {
      with_tile(Format::kDtype, g.tasks, [&](auto tile) {
        GRADSIM_LAUNCH(gramian_kernel<decltype(tile)>, grid_of(items), kGramianThreads, 0, stream, g, chunk, partials);
      });
    } else {
      GRADSIM_LAUNCH(tiled_gramian_kernel<Format>, grid_of(items * triangle_of<kTileRows>(g.tasks).blocks()),
                     kGramianThreads, 0, stream, g, chunk, partials);
    }
  });
}

// The partial results of two sets hold all pairs: larger items.
int64_t cross_chunk(const Layout& a, const Layout& b) { return chunk_of(a.columns, 2 * (a.tasks + b.tasks)); }

}  // namespace

size_t gramian_workspace(const Layout& g) {
  const int64_t items = item_count(g, chunk_of(g.columns, g.tasks)) * strips_of(g);
  return size_t(items * pair_count(g.tasks)) * sizeof(double);
}

void gramian_and_counters(const Layout& g, double* M, void* workspace, unsigned* counters, Stream stream) {
  const int64_t chunk = chunk_of(g.columns, g.tasks);
  double* const partials = static_cast<double*>(workspace);
  gramian_partials(g, chunk, partials, stream);
  reduce(g, chunk, strips_of(g), pair_count(g.tasks), true, partials, M, counters, stream);
}

void gramian(const Layout& g, double* M, void* workspace, Stream stream) {
  gramian_and_counters(g, M, workspace, nullptr, stream);
}

size_t cross_gramian_workspace(const Layout& a, const Layout& b) {
  const int64_t items = item_count(a, cross_chunk(a, b)) * rectangle(a, b).strips();
  return size_t(items * a.tasks * b.tasks) * sizeof(double);
}

void cross_gramian(const Layout& a, const Layout& b, double* C, void* workspace, Stream stream) {
  const int64_t chunk = cross_chunk(a, b), items = item_count(a, chunk);
  const int64_t values = a.tasks * b.tasks;
  const Tiling tiling = rectangle(a, b);
  double* const partials = static_cast<double*>(workspace);
  Layout b_as_a = b;  // one table decides where the segments lie, whatever the other holds
  b_as_a.position = a.position, b_as_a.columns = a.columns, b_as_a.segments = a.segments;
  if (items > 0 && values > 0)
    for_each_format(a, [&](auto format) {
      using Format = decltype(format);
      const dim3 grid = grid_of(items * tiling.blocks());
      if (a.tasks <= kSmallRows && b.tasks <= kSmallRows)
        GRADSIM_LAUNCH((cross_gramian_kernel<Format, kSmallRows>), grid, kGramianThreads, 0, stream, a, b_as_a, chunk,
                       partials);
      else
        GRADSIM_LAUNCH((cross_gramian_kernel<Format, kTileRows>), grid, kGramianThreads, 0, stream, a, b_as_a, chunk,
                       partials);
    });
  reduce(a, chunk, tiling.strips(), values, false, partials, C, nullptr, stream);
}

}  // namespace gradsim::gpu
