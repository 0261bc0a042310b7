// The weights of one group of up to 32 tasks, by one block: g'_i = c_i J, so |g'_i|^2 = c_i M c_i^T and
// g'_i . g_j = (c_i M)_j. Row i is a chain of T - 1 dependent visits and knows no other row, so what counts is the
// latency of a visit: a team of 8 lanes a row, c_i and c_i M in registers, sums by 3 exchanges, all T rows at once.
// How many tasks a lane takes (kPer) decides the order of the sums: weights() and gradvac() may differ in the last
// bits.
#pragma once

#include "cuda/correction.cuh"
#include "cuda/order.cuh"

namespace gradsim::gpu {

constexpr int64_t kTeamTasks = 32;  // at most, by teams
constexpr unsigned kTeamThreads = kTeam * unsigned(kTeamTasks);

// The shared memory of a block, for T <= kTasks.
template <unsigned kPer>
struct TeamShared {
  static_assert(kPer == 1 || kPer == 2 || kPer == 4, "lanes take neighbouring keys of one Philox call");
  static constexpr unsigned kTasks = kTeam * kPer;
  static constexpr unsigned kNone = 255;  // in order: visits nobody

  double M[kTasks * kTasks];       // [T, T]; in the end c
  double target[kTasks * kTasks];  // [T, T]
  double norm[kTasks], inverse_norm[kTasks];
  uint8_t order[kTasks * kTasks];  // [T, T - 1]
};

__device__ inline double sum_of_team(double x) {
#pragma unroll
  for (unsigned lanes = kTeam / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, int(lanes));
  return x;
}

// What lane l holds in slot p belongs to task l kPer + p; the value that belongs to task j.
template <unsigned kPer>
__device__ double pick(const double (&held)[kPer], unsigned j) {
  double value = held[0];  // no loop over slots: the compiler would put them into memory
  if constexpr (kPer >= 2) value = j & 1 ? held[1] : value;
  if constexpr (kPer == 4) value = j & 2 ? (j & 1 ? held[3] : held[2]) : value;
  return __shfl_sync(kAllLanes, value, int(j / kPer), kTeam);
}

// Row i, by a team; returns the number of corrections. Teams with i >= tasks only take part in the exchanges.
template <unsigned kPer>
__device__ unsigned run_row(TeamShared<kPer>& shared, const Surgery& surgery, const Draw& draw, unsigned i,
                            unsigned tasks, double (&c)[kPer]) {
  const unsigned lane = threadIdx.x % kTeam, mine = lane * kPer;
  const unsigned row = i < tasks ? i : tasks - 1;  // of the same warp
  uint8_t* const order = shared.order + row * (tasks - 1);
  double* const target = shared.target + row * tasks;
  if (surgery.order) {
    const int64_t* given = surgery.order + (draw.group * tasks + row) * (tasks - 1);
    for (unsigned s = lane; i < tasks && s < tasks - 1; s += kTeam) {
      const int64_t j = load_readonly(given + s);
      order[s] = uint8_t(0 <= j && j < tasks && j != i ? j : shared.kNone);
    }
  } else {
    draw_row_by_team<kPer>(draw, i, tasks, [=](unsigned s, unsigned j) {
      if (i < tasks) order[s] = uint8_t(j);
    });
  }
  const bool chosen = i < tasks && (!surgery.vaccinate || surgery.vaccinate[i]);
  double cM[kPer], norm[kPer];
#pragma unroll
  for (unsigned p = 0; p < kPer; ++p) {
    const bool there = mine + p < tasks;
    c[p] = mine + p == i;
    cM[p] = there ? shared.M[row * tasks + mine + p] : 0;
    norm[p] = there ? shared.norm[mine + p] : 0;
  }
  double squared = shared.M[row * tasks + row];
  bool zero = !(squared > 0);
  Length length = Length::of(squared);
  unsigned corrections = 0;
  for (unsigned s = 0; s + 1 < tasks; ++s) {
    __syncwarp();  // what lane 0 has written below, and the order above
    const unsigned listed = order[s];
    const unsigned j = listed < tasks ? listed : 0;
    const double norm_j = shared.norm[j], inverse_norm_j = shared.inverse_norm[j];
    const double phi_hat = surgery.target ? target[j] : 0;
    const double wanted = wanted_target(phi_hat, surgery.max_target);
    const double phi = cosine(pick(cM, j), length, inverse_norm_j);
    const bool visits = chosen && listed < tasks && !zero && norm_j > 0;  // else the cosine is undefined
    const bool corrects = visits && phi < wanted;
    __syncwarp();
    if (visits && lane == 0) target[j] = decayed(phi_hat, phi, surgery.beta);
    if (!__any_sync(kAllLanes, corrects)) continue;
    const double a = corrects ? correction(wanted, phi, length, inverse_norm_j) : 0;
    double sum = 0, scale = 0;
#pragma unroll
    for (unsigned p = 0; p < kPer; ++p) {
      if (mine + p == j) c[p] += a;
      if (mine + p < tasks) cM[p] += a * shared.M[j * tasks + mine + p];
      sum += c[p] * cM[p];
      scale += fabs(c[p]) * norm[p];
    }
    sum = sum_of_team(sum);
    scale = sum_of_team(scale);
    if (corrects) {
      zero = negligible(sum, scale, surgery.eps);  // nothing but the rounding error of M is left
      length = Length::of(sum);
      ++corrections;
    }
  }
  __syncwarp();
  return corrections;
}

// By all threads of a block of at least kTeam T, a multiple of a warp, with shared.M written and a barrier since;
// weights [T] of the group. Ends with a barrier.
template <unsigned kPer>
__device__ void weights_of_group(TeamShared<kPer>& shared, const Surgery& surgery, const Draw& draw, unsigned tasks,
                                 double* weights) {
  const unsigned entries = tasks * tasks, i = threadIdx.x / kTeam, mine = threadIdx.x % kTeam * kPer;
  double* const targets = surgery.target ? surgery.target + draw.group * entries : nullptr;
  int64_t* const counts = surgery.corrections ? surgery.corrections + draw.group * tasks : nullptr;
  bool finite = true;
  for (unsigned p = threadIdx.x; p < entries; p += blockDim.x) {
    finite = finite && isfinite(shared.M[p]);
    if (targets) shared.target[p] = targets[p];
  }
  for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) {
    const double squared = shared.M[j * tasks + j];
    shared.norm[j] = squared > 0 ? sqrt(squared) : 0;
    shared.inverse_norm[j] = squared > 0 ? rsqrt(squared) : 0;
  }
  if (!__syncthreads_and(finite)) {
    for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) {
      weights[j] = __longlong_as_double(0x7ff8000000000000);
      if (counts) counts[j] = 0;
    }
    __syncthreads();
    return;
  }
  double c[kPer];
  const bool works = threadIdx.x / kWarp * (kWarp / kTeam) < tasks;  // the warp: it exchanges values
  if (works) {
    const unsigned corrections = run_row<kPer>(shared, surgery, draw, i, tasks, c);
    if (counts && i < tasks && mine == 0) counts[i] = corrections;
  }
  __syncthreads();  // M is not needed any more
#pragma unroll
  for (unsigned p = 0; p < kPer; ++p) {
    if (!works || i >= tasks || mine + p >= tasks) continue;
    shared.M[i * tasks + mine + p] = c[p];
    if (targets) targets[i * tasks + mine + p] = shared.target[i * tasks + mine + p];
  }
  __syncthreads();
  for (unsigned j = threadIdx.x; j < tasks; j += blockDim.x) {
    double sum = 0;
    for (unsigned row = 0; row < tasks; ++row) sum += shared.M[row * tasks + j];
    weights[j] = surgery.scale * sum;
  }
  __syncthreads();
}

}  // namespace gradsim::gpu
