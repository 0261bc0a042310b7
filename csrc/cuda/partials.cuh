// The second stage of the Gramian: the sum of the partial results of a group's items, in float64 and in an order that
// depends on nothing but their number.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

constexpr int kSlices = 32;  // sums that run side by side, or a group of 2,000 items would wait for as many loads
constexpr int kSumSharedBytes = kSlices * int(kWarp) * int(sizeof(double));

// The sum of load(at + n * stride) over n = first, first + step, ... below last, eight loads at a time: a loop that
// adds what it has just loaded waits for memory each time.
template <class Load>
__device__ inline double sum_strided(const double* at, int64_t first, int64_t last, int64_t step, int64_t stride,
                                     const Load& load) {
  constexpr int kTogether = 8;
  double sum = 0;
  const int64_t hop = step * stride;
#pragma unroll 1
  for (int64_t n = first; n < last; n += kTogether * step) {
    const double* const here = at + n * stride;
    const int64_t left = (last - n + step - 1) / step;
    double part[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) part[k] = load(here + (k < left ? k : 0) * hop);
#pragma unroll
    for (int k = 0; k < kTogether; ++k) sum += k < left ? part[k] : 0;
  }
  return sum;
}

// All threads of a block: store(p, sum) for the values p = from to from + 31 that are below `values`, where sum is that
// of partials[item][p] over first <= item < last. `shared`: kSumSharedBytes, aligned to 8 bytes.
template <class Store>
__device__ inline void sum_items(const double* partials, int64_t first, int64_t last, int64_t values, int64_t from,
                                 char* shared, Store store) {
  double (*sums)[kWarp] = reinterpret_cast<double (*)[kWarp]>(shared);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int slices = last - first < kSlices ? int(last - first) : kSlices;
  const bool used = from + lane < values;
  const auto load = [](const double* at) { return load_readonly(at); };  // an earlier launch has written it
  for (int slice = warp; slice < slices; slice += warps)
    sums[slice][lane] = used ? sum_strided(partials + from + lane, first + slice, last, kSlices, values, load) : 0;
  __syncthreads();
  if (warp == 0 && used) {
    double sum = 0;
#pragma unroll 8
    for (int slice = 0; slice < slices; ++slice) sum += sums[slice][lane];
    store(from + lane, sum);
  }
  __syncthreads();  // before the next sum
}

}  // namespace gradsim::gpu
