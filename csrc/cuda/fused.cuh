// The fused step for up to 32 tasks: Gramian, weights and combine in one launch, each group combined while its rows are
// still in L2. The kernel of gradvac(); see schedule.cuh for who does what when.
#pragma once

#include <algorithm>

#include "cuda/combine.cuh"
#include "cuda/gramian.cuh"
#include "cuda/pairs.cuh"
#include "cuda/partials.cuh"
#include "cuda/schedule.cuh"
#include "cuda/sync.cuh"
#include "cuda/weights.cuh"

namespace gradsim::gpu {

// In the workspace. Counters and flags start at 0.
struct FusedState {
  double* partials;  // [items, pairs]
  double* bundled;   // [bundles, pairs]
  unsigned long long* ticket;
  unsigned* arrived;          // [bundles]: items
  unsigned* bundles_arrived;  // [groups]
  unsigned* ready;            // [groups], a flag: the weights are there
};

struct Fused {
  Layout g;
  Dtype dtype_of_buffer;
  Surgery surgery;
  Schedule schedule;
  Bundles bundles;
  FusedState state;
  double* M;
  double* weights;
};

// What a block works on; in shared memory, since registers are scarce while it does.
struct Task {
  bool some;
  Work work;
  Item item;
};

// All threads of a block of 256: store(p, sum) with the sum of partials[n][p] over first <= n < last, p < values; in an
// order that depends on `values` and the number alone. `scratch`: a double a thread, shared memory.
template <class Store>
__device__ void sum_partials(const double* partials, int64_t first, int64_t last, unsigned values, double* scratch,
                             const Store& store) {
  const unsigned slices = values <= blockDim.x ? blockDim.x / values : 1;
  const auto sum_of = [=](unsigned p, unsigned slice) {
    const auto load = [](const double* at) { return load_from_l2(at); };
    return sum_strided(partials + p, first + slice, last, slices, values, load);
  };
  if (slices == 1) {
    for (unsigned p = threadIdx.x; p < values; p += blockDim.x) store(p, sum_of(p, 0));
    return;
  }
  const unsigned slice = threadIdx.x / values;
  scratch[threadIdx.x] = slice < slices ? sum_of(threadIdx.x % values, slice) : 0;
  __syncthreads();
  if (threadIdx.x < values) {
    double sum = 0;
    for (unsigned n = 0; n < slices; ++n) sum += scratch[n * values + threadIdx.x];
    store(threadIdx.x, sum);
  }
  __syncthreads();
}

template <unsigned kPer>
struct FinishShared {
  TeamShared<kPer> team;
  double scratch[kGramianThreads];
};

// The block that has arrived last in its group: M and the weights of the group from `partials` first to last - 1.
template <unsigned kPer>
__device__ void finish_group(const Fused& f, int64_t group, const double* partials, int64_t first, int64_t last,
                             FinishShared<kPer>& shared) {
  const unsigned tasks = unsigned(f.g.tasks);
  double* const M = f.M + group * tasks * tasks;
  sum_partials(partials, first, last, unsigned(pair_count(tasks)), shared.scratch, [&](unsigned p, double sum) {
    const Pair pair = pair_at(p);
    const unsigned upper = unsigned(pair.i) * tasks + unsigned(pair.j),
                   lower = unsigned(pair.j) * tasks + unsigned(pair.i);
    shared.team.M[upper] = shared.team.M[lower] = sum;
    M[upper] = M[lower] = sum;
  });
  __syncthreads();
  const Draw draw{f.surgery.seed, step_of(f.surgery.step, f.surgery.step_at), group};
  weights_of_group<kPer>(shared.team, f.surgery, draw, tasks, f.weights + group * tasks);
  raise_flag(f.state.ready + group);
}

// After the partial Gramian of an item is written: adds up what is complete.
template <unsigned kPer>
__device__ void arrive(const Fused& f, const Work& work, char* shared) {
  __shared__ bool is_last;
  auto& finish = *reinterpret_cast<FinishShared<kPer>*>(shared);
  const unsigned pairs = unsigned(pair_count(f.g.tasks));
  const int64_t bundle = f.bundles.of(work), from = f.bundles.first_item(work), to = f.bundles.last_item(work);
  if (!arrives_last(f.state.arrived + bundle, unsigned(to - from), is_last)) return;
  const int64_t first = f.bundles.first(work), last = f.bundles.last(work);
  if (last - first == 1) return finish_group<kPer>(f, work.group, f.state.partials, from, to, finish);
  double* const sums = f.state.bundled + bundle * pairs;
  sum_partials(f.state.partials, from, to, pairs, finish.scratch, [=](unsigned p, double sum) { sums[p] = sum; });
  if (!arrives_last(f.state.bundles_arrived + work.group, unsigned(last - first), is_last)) return;
  finish_group<kPer>(f, work.group, f.state.bundled, first, last, finish);
}

// Tiles: one for each dtype that may occur.
template <class... Tiles>
struct FusedTiles {
  static constexpr int kMost = std::max({Tiles::kMaxTasks...});
  // A multiprocessor, as many as registers allow: while one waits at a barrier or for a counter, another reads.
  static constexpr int kBlocks = kMost <= 16 ? 2 : 1;
  static constexpr unsigned kPer = kMost <= 8 ? 1 : kMost <= 16 ? 2 : 4;
  static constexpr size_t kSharedBytes =
      std::max({sizeof(FinishShared<kPer>), size_t(Tiles::kSharedBytes)..., size_t(kMost) * kWeightedRowBytes});

  __device__ static void work(const Fused& f, const Task& task, char* shared) {
    if (task.work.combines) {
      wait_for_flag(f.state.ready + task.work.group);
      (combine<Tiles::kDtype>(f, task, shared), ...);
    } else {
      (multiply<Tiles>(f, task, shared), ...);
      arrive<kPer>(f, task.work, shared);
    }
  }

 private:
  template <class Tile>
  __device__ static void multiply(const Fused& f, const Task& task, char* shared) {
    if (sizeof...(Tiles) > 1 && task.item.dtype != Tile::kDtype) return;
    gramian_of_item<Tile>(f.g, task.item, f.state.partials + task.work.item * pair_count(f.g.tasks), shared);
  }

  template <Dtype kDtype>
  __device__ static void combine(const Fused& f, const Task& task, char* shared) {
    if (sizeof...(Tiles) > 1 && task.item.dtype != kDtype) return;
    combine_item<FormatOf<kDtype>>(f.g, task.item, f.weights + task.work.group * f.g.tasks, shared);
  }
};

// One block, one ticket: a loop over tickets would hold on to registers that the tiles need.
template <class Tiles>
__device__ void run_ticket(const Fused& f, char* shared) {
  __shared__ Task task;
  if (threadIdx.x < kWarp) {
    const unsigned long long mine = threadIdx.x == 0 ? atomicAdd(f.state.ticket, 1ull) : 0;
    const int64_t ticket = int64_t(__shfl_sync(kAllLanes, mine, 0));
    const bool some = ticket < 2 * f.schedule.items();
    if (some) {
      const Work work = work_of(f.schedule, ticket);
      const Item item = item_of_work(f.g, f.schedule, work, f.dtype_of_buffer);
      if (threadIdx.x == 0) task.work = work, task.item = item;
    }
    if (threadIdx.x == 0) task.some = some;
  }
  __syncthreads();
  if (task.some) Tiles::work(f, task, shared);
}

}  // namespace gradsim::gpu
