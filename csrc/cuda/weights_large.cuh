// The weights of more than 32 tasks: a block a row (k, i), its c_i and c_i M in shared memory, M in global memory. The
// block that comes last in its group adds up the rows c_i.
#pragma once

#include "cuda/correction.cuh"
#include "cuda/order.cuh"
#include "cuda/sync.cuh"

namespace gradsim::gpu {

constexpr int64_t kLargestTasks = 2048;  // what fits the shared memory of every device
constexpr unsigned kRowThreads = 256;
constexpr unsigned kAhead = 4;  // entries of a row of M that a thread loads before it knows whether they are needed

inline size_t row_shared_bytes(int64_t tasks) { return size_t(tasks) * (3 * sizeof(double) + sizeof(uint16_t)); }

// Both sums over the block, by every thread alike; `parity` alternates from call to call, so that one barrier is
// enough.
struct TwoSums {
  double sums[2][kRowThreads / kWarp][2];

  __device__ void add_up(double& a, double& b, unsigned parity) {
#pragma unroll
    for (unsigned lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      a += __shfl_xor_sync(kAllLanes, a, int(lanes));
      b += __shfl_xor_sync(kAllLanes, b, int(lanes));
    }
    double (&mine)[2] = sums[parity][threadIdx.x / kWarp];
    if (threadIdx.x % kWarp == 0) mine[0] = a, mine[1] = b;
    __syncthreads();
    a = b = 0;
    for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) {
      a += sums[parity][warp][0];
      b += sums[parity][warp][1];
    }
  }
};

// The order of the row, in shared memory; what is not another task becomes `tasks`: it is not visited. No barrier
// after.
__device__ inline void order_of_row(const Surgery& surgery, const Draw& draw, unsigned i, unsigned tasks,
                                    uint32_t (&keys)[kKeyTile], uint16_t* order) {
  if (!surgery.order) {
    draw_row_by_block(draw, i, tasks, keys, [=](unsigned s, unsigned j) { order[s] = uint16_t(j); });
    return;
  }
  const int64_t* given = surgery.order + (draw.group * tasks + i) * (tasks - 1);
  for (unsigned s = threadIdx.x; s < tasks - 1; s += blockDim.x) {
    const int64_t j = load_readonly(given + s);
    order[s] = uint16_t(0 <= j && j < tasks && j != i ? j : tasks);
  }
}

// c_i of row i in c [T], which is shared memory, as are cM and norm; returns the number of corrections. Ends without a
// barrier.
__device__ inline int64_t run_row_by_block(const double* M, const Surgery& surgery, double* target, unsigned i,
                                           unsigned tasks, const uint16_t* order, TwoSums& sums, double* c, double* cM,
                                           double* norm) {
  for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) {
    c[j] = j == i;
    cM[j] = M[int64_t(i) * tasks + j];
    const double own = M[int64_t(j) * tasks + j];
    norm[j] = own > 0 ? sqrt(own) : 0;
  }
  __syncthreads();
  const double own = M[int64_t(i) * tasks + i];
  Length length = Length::of(own);
  bool zero = !(own > 0);
  int64_t corrections = 0;
  for (unsigned s = 0; s + 1 < tasks; ++s) {
    const unsigned j = order[s];
    if (j >= tasks || zero || !(norm[j] > 0)) continue;  // the cosine is undefined
    const double* row = M + int64_t(j) * tasks;
    double ahead[kAhead];
#pragma unroll
    for (unsigned n = 0; n < kAhead; ++n) {
      const unsigned e = threadIdx.x + n * blockDim.x;
      ahead[n] = e < tasks ? row[e] : 0;
    }
    const double phi_hat = target ? target[j] : 0, inverse_norm_j = 1 / norm[j];
    const double wanted = wanted_target(phi_hat, surgery.max_target);
    const double phi = cosine(cM[j], length, inverse_norm_j);
    __syncthreads();  // all have read the target and cM
    if (target && threadIdx.x == 0) target[j] = decayed(phi_hat, phi, surgery.beta);
    if (!(phi < wanted)) continue;
    const double a = correction(wanted, phi, length, inverse_norm_j);
    double sum = 0, scale = 0;
    const auto add = [&](unsigned e, double entry) {
      if (e == j) c[e] += a;
      cM[e] += a * entry;
      sum += c[e] * cM[e];
      scale += fabs(c[e]) * norm[e];
    };
#pragma unroll
    for (unsigned n = 0; n < kAhead; ++n)
      if (threadIdx.x + n * blockDim.x < tasks) add(threadIdx.x + n * blockDim.x, ahead[n]);
    for (unsigned e = threadIdx.x + kAhead * blockDim.x; e < tasks; e += blockDim.x) add(e, row[e]);
    sums.add_up(sum, scale, ++corrections % 2);  // its barrier: cM is complete
    zero = negligible(sum, scale, surgery.eps);
    length = Length::of(sum);
  }
  return corrections;
}

}  // namespace gradsim::gpu
