// The visiting order as an op of its own; the weights draw theirs without it.
#include "cuda/order.cuh"

#include "cuda/launch.cuh"
#include "gradsim/gpu.h"

namespace gradsim::gpu {

namespace {

constexpr unsigned kOrderThreads = 256;
constexpr unsigned kOrderTeams = kOrderThreads / kTeam;

// Up to 32 tasks: a team of lanes per row.
__global__ void __launch_bounds__(kOrderThreads)
    order_by_teams(int64_t rows, unsigned tasks, uint64_t seed, uint64_t step, const int64_t* step_at, int64_t* order) {
  const int64_t row = int64_t(blockIdx.x) * kOrderTeams + threadIdx.x / kTeam;
  const Draw draw{seed, step_of(step, step_at), row / tasks};
  const auto store = [=](unsigned s, unsigned j) {
    if (row < rows) order[row * (tasks - 1) + s] = j;
  };
  draw_row_by_team<4>(draw, unsigned(row % tasks), tasks, store);
}

// More: a block per row.
__global__ void __launch_bounds__(kOrderThreads)
    order_by_blocks(unsigned tasks, uint64_t seed, uint64_t step, const int64_t* step_at, int64_t* order) {
  __shared__ uint32_t keys[kKeyTile];
  const int64_t row = blockIdx.x;
  const Draw draw{seed, step_of(step, step_at), row / tasks};
  const auto store = [=](unsigned s, unsigned j) { order[row * (tasks - 1) + s] = j; };
  draw_row_by_block(draw, unsigned(row % tasks), tasks, keys, store);
}

}  // namespace

void random_order(int64_t groups, int64_t tasks, uint64_t seed, uint64_t step, const int64_t* step_at, int64_t* order,
                  Stream stream) {
  const int64_t rows = groups * tasks;
  if (rows == 0 || tasks == 1) return;
  if (tasks <= int64_t(kTeam) * 4) {
    const dim3 grid = grid_of((rows + kOrderTeams - 1) / kOrderTeams);
    GRADSIM_LAUNCH(order_by_teams, grid, kOrderThreads, 0, stream, rows, unsigned(tasks), seed, step, step_at, order);
  } else {
    GRADSIM_LAUNCH(order_by_blocks, grid_of(rows), kOrderThreads, 0, stream, unsigned(tasks), seed, step, step_at,
                   order);
  }
}

}  // namespace gradsim::gpu
