// Gramians of more than 32 tasks, and of two sets of tasks: tiles of rows, a warp for each tile. The warps of a block
// read the same columns at the same time, so that most of them find their rows in the caches.
#pragma once

#include "cuda/device.cuh"
#include "cuda/gramian.cuh"
#include "cuda/items.cuh"

namespace gradsim::gpu {

// Where few tiles leave warps without work, the columns of an item are dealt out to several strips, each with a partial
// result of its own.
struct Tiling {
  int64_t down, across;  // blocks of rows, on the left and on the right
  bool triangle;         // only tiles on and above the diagonal

  GRADSIM_HOST_DEVICE int64_t tiles() const { return triangle ? pair_count(down) : down * across; }
  GRADSIM_HOST_DEVICE int64_t strips() const { return tiles() < kGramianWarps ? kGramianWarps / tiles() : 1; }
  // Blocks of threads an item needs. Those of one item follow each other: they share its columns in L2.
  GRADSIM_HOST_DEVICE int64_t blocks() const { return (tiles() * strips() + kGramianWarps - 1) / kGramianWarps; }
};

template <int kSize>
GRADSIM_HOST_DEVICE constexpr Tiling triangle_of(int64_t tasks) {
  return {(tasks + kSize - 1) / kSize, (tasks + kSize - 1) / kSize, true};
}

template <int kSize>
GRADSIM_HOST_DEVICE constexpr Tiling rectangle_of(int64_t left, int64_t right) {
  return {(left + kSize - 1) / kSize, (right + kSize - 1) / kSize, false};
}

// What the warp works on; nothing where `some` is false.
struct TileOfWarp {
  bool some;
  int64_t m, n;  // blocks of rows
  int strip;
  int64_t item;  // index
};

__device__ inline TileOfWarp tile_of_warp(const Tiling& tiling) {
  const int64_t unit = blockIdx.x % tiling.blocks() * kGramianWarps + threadIdx.x / kWarp;
  TileOfWarp mine;
  mine.item = blockIdx.x / tiling.blocks();
  mine.some = unit < tiling.tiles() * tiling.strips();
  mine.strip = int(unit / tiling.tiles());
  const int64_t tile = unit % tiling.tiles();
  const Pair pair = tiling.triangle ? pair_at(tile) : Pair{tile / tiling.across, tile % tiling.across};
  mine.m = pair.i, mine.n = pair.j;
  return mine;
}

// One warp: the products of the rows left0, ... of a and right0, ... of b, put(i, j, sum) for all within the tasks.
template <class Engine, int kRight, class Put>
__device__ void tile_of_item(const Layout& a, int64_t left0, const Layout& b, int64_t right0, const Item& item,
                             int strip, int strips, const char** table, Put put) {
  const TileRows rows = find_rows<Engine::kRows, kRight>(a, left0, b, right0, item, table);
  Engine engine;
  walk(engine, rows, item, strip, strips);
  engine.each([&](int i, int j, double sum) {
    if (left0 + i >= a.tasks || right0 + j >= b.tasks) return;
    const bool both = rows.left_has(i) && (kRight ? rows.right_has(j) : rows.left_has(j));
    put(left0 + i, right0 + j, both ? sum : 0);
  });
}

}  // namespace gradsim::gpu
