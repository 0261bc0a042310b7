// The partial Gramian of one item for up to 32 tasks: what a block of the Gramian and of the fused step does.
#pragma once

#include "cuda/device.cuh"
#include "cuda/items.cuh"
#include "cuda/pairs.cuh"
#include "cuda/tile_fma.cuh"
#include "cuda/tile_mma.cuh"
#include "cuda/tile_rows.cuh"
#include "cuda/tile_walk.cuh"

namespace gradsim::gpu {

constexpr int kGramianWarps = 8;
constexpr int kGramianThreads = kGramianWarps * int(kWarp);
constexpr int64_t kSmallTasks = 32;  // one tile holds all pairs

// One engine for all pairs of up to kMaxTasks tasks, the columns dealt out to the warps.
template <class Engine_>
struct Tile {
  using Engine = Engine_;
  static constexpr Dtype kDtype = Engine::kDtype;
  static constexpr int kMaxTasks = Engine::kRows;
  static constexpr int kBlocksPerMultiprocessor = Engine::kBlocksPerMultiprocessor;
  static constexpr int kTableBytes = kGramianWarps * Engine::kRows * int(sizeof(const char*));
  static constexpr int kSharedBytes =
      kTableBytes + kGramianWarps * int(pair_count(Engine::kRows)) * int(sizeof(double));
};

// call(Tile<...>()) with the tile for up to kSmallTasks tasks of a dtype.
template <class Call>
void with_tile(Dtype dtype, int64_t tasks, Call&& call) {
  if (dtype == Dtype::kFloat32) {
    if (tasks <= 4) return call(Tile<FmaDiagonal<4>>());
    if (tasks <= 8) return call(Tile<FmaDiagonal<8>>());
    if (tasks <= 12) return call(Tile<FmaDiagonal<12>>());
    if (tasks <= 16) return call(Tile<FmaDiagonal<16>>());
    if (tasks <= 24) return call(Tile<MmaTile<SplitFloat32, 3, 0>>());
    return call(Tile<MmaTile<SplitFloat32, 4, 0>>());
  }
  const auto by_tasks = [&](auto format) {
    using Format = decltype(format);
    if (tasks <= 8) return call(Tile<MmaTile<Format, 1, 0>>());
    if (tasks <= 16) return call(Tile<MmaTile<Format, 2, 0>>());
    return call(Tile<MmaTile<Format, 4, 0>>());
  };
  if (dtype == Dtype::kFloat16) return by_tasks(Float16());
  if (dtype == Dtype::kBFloat16) return by_tasks(BFloat16());
  return by_tasks(Float64());
}

// All threads of a block of kGramianThreads: the partial Gramian of an item of Tile::kDtype, written to
// partial[pair_index(i, j)] for i <= j < g.tasks <= Tile::kMaxTasks. `shared`: Tile::kSharedBytes, aligned to 16 bytes,
// free for other use when the call returns.
template <class Tile>
__device__ void gramian_of_item(const Layout& g, const Item& item, double* partial, char* shared) {
  using Engine = typename Tile::Engine;
  const int warp = threadIdx.x / kWarp, pairs = int(pair_count(g.tasks));
  const char** table = reinterpret_cast<const char**>(shared) + warp * Engine::kRows;
  double* sums = reinterpret_cast<double*>(shared + Tile::kTableBytes);
  const TileRows rows = find_rows<Engine::kRows, 0>(g, 0, g, 0, item, table);
  Engine engine;
  walk(engine, rows, item, warp, kGramianWarps);
  engine.each([&](int i, int j, double sum) {
    if (i <= j && j < g.tasks) sums[warp * pairs + pair_index(i, j)] = rows.left_has(i) && rows.left_has(j) ? sum : 0;
  });
  __syncthreads();
  for (int p = threadIdx.x; p < pairs; p += kGramianThreads) {
    double sum = 0;
    for (int w = 0; w < kGramianWarps; ++w) sum += sums[w * pairs + p];
    partial[p] = sum;
  }
  __syncthreads();  // before the shared memory is used again
}

}  // namespace gradsim::gpu
