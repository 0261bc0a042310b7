// weights(): PCGrad's and GradVac's weights from Gramians, one launch for all groups and tasks.
#include "cuda/weights.cuh"

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/two_pass.cuh"
#include "cuda/weights_large.cuh"

namespace gradsim::gpu {

namespace {

template <unsigned kPer>
__global__ void __launch_bounds__(kTeam* TeamShared<kPer>::kTasks)
    weights_by_teams(const double* M, unsigned tasks, Surgery surgery, double* weights) {
  __shared__ TeamShared<kPer> shared;
  const int64_t k = blockIdx.x;
  for (unsigned p = threadIdx.x; p < tasks * tasks; p += blockDim.x) shared.M[p] = M[k * tasks * tasks + p];
  __syncthreads();
  const Draw draw{surgery.seed, step_of(surgery.step, surgery.step_at), k};
  weights_of_group<kPer>(shared, surgery, draw, tasks, weights + k * tasks);
}

template <unsigned kPer>
void launch_by_teams(const double* M, int64_t groups, int64_t tasks, const Surgery& surgery, double* weights,
                     Stream stream) {
  const unsigned threads = (unsigned(tasks) * kTeam + kWarp - 1) / kWarp * kWarp;
  GRADSIM_LAUNCH(weights_by_teams<kPer>, grid_of(groups), threads, 0, stream, M, unsigned(tasks), surgery, weights);
}

// rows [G, T, T]: the c_i. arrived [G]: zeros.
__global__ void __launch_bounds__(kRowThreads)
    weights_by_blocks(const double* all_M, unsigned tasks, Surgery surgery, double* all_rows, unsigned* arrived,
                      double* all_weights) {
  GRADSIM_DYNAMIC_SHARED(double, c);
  __shared__ TwoSums sums;
  __shared__ uint32_t keys[kKeyTile];
  __shared__ bool last;
  double* const cM = c + tasks;
  double* const norm = cM + tasks;
  uint16_t* const order = reinterpret_cast<uint16_t*>(norm + tasks);
  const int64_t k = blockIdx.x / tasks, entries = int64_t(tasks) * tasks;
  const unsigned i = blockIdx.x % tasks;
  const double* const M = all_M + k * entries;
  double* const rows = all_rows + k * entries;
  double* const weights = all_weights + k * tasks;
  bool finite = true;
  for (int64_t p = threadIdx.x; p < entries; p += blockDim.x) finite = finite && isfinite(M[p]);
  finite = __syncthreads_and(finite);
  int64_t corrections = 0;
  if (finite && (!surgery.vaccinate || surgery.vaccinate[i])) {
    const Draw draw{surgery.seed, step_of(surgery.step, surgery.step_at), k};
    order_of_row(surgery, draw, i, tasks, keys, order);
    double* const target = surgery.target ? surgery.target + k * entries + int64_t(i) * tasks : nullptr;
    corrections = run_row_by_block(M, surgery, target, i, tasks, order, sums, c, cM, norm);
  } else {
    const double nan = __longlong_as_double(0x7ff8000000000000);
    for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) c[j] = finite ? double(j == i) : nan;
  }
  if (surgery.corrections && threadIdx.x == 0) surgery.corrections[k * tasks + i] = corrections;
  __syncthreads();
  for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) rows[int64_t(i) * tasks + j] = c[j];
  if (!arrives_last(arrived + k, tasks, last)) return;
  for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) {
    double sum = 0;
#pragma unroll 8
    for (unsigned row = 0; row < tasks; ++row) sum += load_from_l2(rows + int64_t(row) * tasks + j);
    weights[j] = surgery.scale * sum;
  }
}

}  // namespace

size_t weights_workspace(int64_t groups, int64_t tasks) {
  if (tasks <= kTeamTasks) return 0;
  return size_t(groups) * size_t(tasks) * size_t(tasks) * sizeof(double) + size_t(groups) * sizeof(unsigned);
}

unsigned* arrival_counters(void* workspace, int64_t groups, int64_t tasks) {
  return reinterpret_cast<unsigned*>(static_cast<double*>(workspace) + groups * tasks * tasks);
}

void weights_after_counters(const double* M, int64_t groups, int64_t tasks, const Surgery& surgery, double* weights,
                            void* workspace, Stream stream) {
  if (tasks > kLargestTasks) throw std::runtime_error("gradsim_kernels: the CUDA kernels take at most 2,048 tasks");
  const size_t shared_bytes = row_shared_bytes(tasks);
  allow_shared(weights_by_blocks, shared_bytes);
  const unsigned threads = unsigned(std::min<int64_t>((tasks + kWarp - 1) / kWarp * kWarp, kRowThreads));
  GRADSIM_LAUNCH(weights_by_blocks, grid_of(groups * tasks), threads, shared_bytes, stream, M, unsigned(tasks), surgery,
                 static_cast<double*>(workspace), arrival_counters(workspace, groups, tasks), weights);
}

void weights(const double* M, int64_t groups, int64_t tasks, const Surgery& surgery, double* weights, void* workspace,
             Stream stream) {
  if (groups == 0) return;
  if (tasks <= 8) return launch_by_teams<1>(M, groups, tasks, surgery, weights, stream);
  if (tasks <= 16) return launch_by_teams<2>(M, groups, tasks, surgery, weights, stream);
  if (tasks <= kTeamTasks) return launch_by_teams<4>(M, groups, tasks, surgery, weights, stream);
  check(cudaMemsetAsync(arrival_counters(workspace, groups, tasks), 0, size_t(groups) * sizeof(unsigned),
                        reinterpret_cast<cudaStream_t>(stream)),
        "a memset");
  weights_after_counters(M, groups, tasks, surgery, weights, workspace, stream);
}

}  // namespace gradsim::gpu
