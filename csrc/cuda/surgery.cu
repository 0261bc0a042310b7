// gradvac(): the step of GradVac or PCGrad on gradients. Up to 32 tasks in one launch, besides one that prepares it;
// more by way of memory: Gramian, weights, combine.
#include <algorithm>

#include "cuda/fused.cuh"
#include "cuda/launch.cuh"
#include "cuda/two_pass.cuh"
#include "cuda/workspace.cuh"
#include "gradsim/gpu.h"

namespace gradsim::gpu {

namespace {

// Sizes of the fused step: functions of the gradients' sizes, never of the device. `chunk` and `bundle` decide in which
// order M is added up.
struct FusedSizes {
  // A block is at work on one item of about this many bytes of rows, and several hundred blocks together must not span
  // more than a part of L2; smaller ones would cost more than their reading, a search and three barriers each. Few
  // columns are dealt out to more blocks.
  static constexpr int64_t kItemBytes = 64 << 10, kWantedItems = 512;
#ifdef GRADSIM_EMULATED  // small: a few thousand columns come to several bundles, and to combines between Gramians
  static constexpr int64_t kLeastColumns = 128, kAheadBytes = 24 << 10, kBundle = 8;
#else
  static constexpr int64_t kLeastColumns = 512, kBundle = 256;
  // Rows that are read while the last items of a group and its weights are computed, some 6 us at 4 TB/s.
  static constexpr int64_t kAheadBytes = 24 << 20;
#endif

  int64_t chunk, items, ahead;
  Bundles bundles;

  explicit FusedSizes(const Layout& g) {
    const int64_t bytes = g.dtypes & (1u << int(Dtype::kFloat64)) ? 8 : g.dtypes & (1u << int(Dtype::kFloat32)) ? 4 : 2;
    const int64_t column = bytes * g.tasks;
    const int64_t item_bytes = g.tasks <= 16 ? kItemBytes : 2 * kItemBytes;  // half as many blocks at a time
    const int64_t most = std::max(kLeastColumns, std::min(item_bytes / column, g.columns / kWantedItems));
    for (chunk = kLeastColumns; 2 * chunk <= most;) chunk *= 2;
    items = item_count(g, chunk);
    ahead = std::max<int64_t>(1, kAheadBytes / (chunk * column));
    bundles.size = g.tasks <= 8 ? kBundle : g.tasks <= 16 ? kBundle / 2 : kBundle / 4;  // a thread's sums stay as long
  }
};

constexpr unsigned kPrepareThreads = 1024;

// Everything besides the gradients that prepare_kernel writes.
struct Prepared {
  int64_t* first;      // [groups + 1], see Schedule
  unsigned* counters;  // [words]: all counters and flags of FusedState
  int64_t words, items;
};

// The first items of the groups, made to rise whatever the tables hold, zeros in all counters and flags, and the
// results of groups that have no item. One block.
__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(const __grid_constant__ Fused f, Prepared to) {
  __shared__ int64_t highest[kPrepareThreads / kWarp];
  const int64_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = kPrepareThreads / kWarp;
  const int64_t groups = f.g.groups, tasks = f.g.tasks;
  for (int64_t n = threadIdx.x; n < to.words; n += kPrepareThreads) to.counters[n] = 0;
  int64_t before = 0;  // the highest of the groups so far; group 0 begins with item 0
  for (int64_t base = 0; base <= groups; base += kPrepareThreads) {
    const int64_t k = base + threadIdx.x;
    int64_t value = 0;
    if (0 < k && k <= groups) value = clamp(first_item_of_group(f.g, f.schedule.chunk, k), 0, to.items);
    for (unsigned lanes = 1; lanes < kWarp; lanes *= 2)
      value = max(value, __shfl_up_sync(kAllLanes, value, lanes));  // the first lanes get their own
    if (lane == kWarp - 1) highest[warp] = value;
    __syncthreads();
    for (int64_t w = 0; w < warps; ++w) {
      if (w == warp) value = max(value, before);
      before = max(before, highest[w]);
    }
    if (k <= groups) to.first[k] = value;
    __syncthreads();
  }
  for (int64_t k = warp; k < groups; k += warps) {
    if (to.first[k] != to.first[k + 1]) continue;
    for (int64_t p = lane; p < tasks * tasks; p += kWarp) f.M[k * tasks * tasks + p] = 0;
    for (int64_t t = lane; t < tasks; t += kWarp) {
      f.weights[k * tasks + t] = f.surgery.scale;
      if (f.surgery.corrections) f.surgery.corrections[k * tasks + t] = 0;
    }
  }
}

template <class Tiles>
__global__ void __launch_bounds__(kGramianThreads, Tiles::kBlocks) fused_kernel(const __grid_constant__ Fused f) {
  __shared__ __align__(16) char shared[Tiles::kSharedBytes];
  run_ticket<Tiles>(f, shared);
}

// call(FusedTiles<...>()) with the tiles for what occurs. Not those of the Gramian alone (with_tile): here a tile that
// leaves registers for a second block is worth more than one that multiplies faster.
template <class Call>
void with_tiles(const Layout& g, const Call& call) {
  if (g.dtypes & (g.dtypes - 1))
    return call(FusedTiles<Tile<MmaTile<Float16, 4, 0>>, Tile<MmaTile<BFloat16, 4, 0>>,
                           Tile<MmaTile<SplitFloat32, 4, 0>>, Tile<MmaTile<Float64, 4, 0>>>());
  const auto call_mma = [&](auto format) {
    using Format = decltype(format);
    if (g.tasks <= 16) return call(FusedTiles<Tile<MmaTile<Format, 2, 0>>>());
    return call(FusedTiles<Tile<MmaTile<Format, 4, 0>>>());
  };
  switch (some_dtype(g)) {
    case Dtype::kFloat16:
      return g.tasks <= 8 ? call(FusedTiles<Tile<MmaTile<Float16, 1, 0>>>()) : call_mma(Float16());
    case Dtype::kBFloat16:
      return g.tasks <= 8 ? call(FusedTiles<Tile<MmaTile<BFloat16, 1, 0>>>()) : call_mma(BFloat16());
    case Dtype::kFloat32:
      if (g.tasks <= 4) return call(FusedTiles<Tile<FmaDiagonal<4>>>());
      return g.tasks <= 8 ? call(FusedTiles<Tile<FmaDiagonal<8>>>()) : call_mma(SplitFloat32());
    case Dtype::kFloat64:
      return call_mma(Float64());
  }
}

// The arrays of a fused step in a workspace, and its size; `fused` and `prepared` are filled in.
size_t lay_out(const FusedSizes& sizes, void* memory, Fused& fused, Prepared& prepared) {
  const int64_t groups = fused.g.groups, pairs = pair_count(fused.g.tasks);
  const int64_t bundles = sizes.bundles.count(sizes.items, groups);
  Workspace workspace(memory);
  FusedState& state = fused.state;
  state.partials = workspace.take<double>(sizes.items * pairs);
  state.bundled = workspace.take<double>(bundles * pairs);
  prepared.first = workspace.take<int64_t>(groups + 1);
  prepared.items = sizes.items;
  prepared.words = 2 + bundles + 2 * groups;
  prepared.counters = workspace.take<unsigned>(prepared.words);
  state.ticket = reinterpret_cast<unsigned long long*>(prepared.counters);
  state.arrived = prepared.counters + 2;
  state.bundles_arrived = state.arrived + bundles;
  state.ready = state.bundles_arrived + groups;
  fused.schedule = {groups, sizes.chunk, sizes.ahead, prepared.first};
  fused.bundles = sizes.bundles;
  return workspace.bytes();
}

void gradvac_fused(const Layout& g, const Surgery& surgery, double* weights, double* M, void* workspace,
                   Stream stream) {
  const FusedSizes sizes(g);
  Fused fused;
  Prepared prepared;
  fused.g = g, fused.dtype_of_buffer = some_dtype(g), fused.surgery = surgery, fused.M = M, fused.weights = weights;
  lay_out(sizes, workspace, fused, prepared);
  GRADSIM_LAUNCH(prepare_kernel, 1, kPrepareThreads, 0, stream, fused, prepared);
  if (sizes.items == 0) return;
  with_tiles(g, [&](auto tiles) {
    using Tiles = decltype(tiles);
    GRADSIM_LAUNCH(fused_kernel<Tiles>, grid_of(2 * sizes.items), kGramianThreads, 0, stream, fused);
  });
}

}  // namespace

size_t gradvac_workspace(const Layout& g) {
  if (g.tasks > kTeamTasks) return gramian_workspace(g) + weights_workspace(g.groups, g.tasks);
  Fused fused;
  Prepared prepared;
  fused.g = g;
  return lay_out(FusedSizes(g), nullptr, fused, prepared);
}

void gradvac(const Layout& g, const Surgery& surgery, double* weights, double* M, void* workspace, Stream stream) {
  if (g.groups == 0) return;
  if (g.tasks <= kTeamTasks) return gradvac_fused(g, surgery, weights, M, workspace, stream);
  void* const rows = static_cast<char*>(workspace) + gramian_workspace(g);
  gramian_and_counters(g, M, workspace, arrival_counters(rows, g.groups, g.tasks), stream);
  weights_after_counters(M, g.groups, g.tasks, surgery, weights, rows, stream);
  combine(g, weights, stream);
}

}  // namespace gradsim::gpu
