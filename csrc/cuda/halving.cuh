// Sums over the lanes of a warp, of many values at once: in each of five rounds a lane gives away half of its values
// and adds the other half's counterparts, so that kValues values need about kValues shuffles, and end up spread over
// the lanes.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

struct Share {
  int first, count;  // the values a lane ends up with
};

template <int kValues>
struct Halving {
  GRADSIM_HOST_DEVICE static constexpr int half(int values) { return (values + 1) / 2; }
  static constexpr int kInFloat64 = half(half(kValues));  // two rounds in float32, three in float64
  static constexpr int kKept = half(half(half(kInFloat64)));

  // total += the sums of `value` over the lanes.
  __device__ static void add(float (&value)[kValues], double (&total)[kKept]) {
    round<kValues, 16>(value);
    round<half(kValues), 8>(value);
    double wide[kInFloat64];
#pragma unroll
    for (int v = 0; v < kInFloat64; ++v) wide[v] = value[v];
    round<kInFloat64, 4>(wide);
    round<half(kInFloat64), 2>(wide);
    round<half(half(kInFloat64)), 1>(wide);
#pragma unroll
    for (int v = 0; v < kKept; ++v) total[v] += wide[v];
  }

  // Lanes with the round's bit keep the upper half, which may be one value shorter.
  __device__ static Share share() {
    const int lane = threadIdx.x % kWarp;
    Share share{0, kValues};
    int values = kValues;
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) {
      values = half(values);
      const bool upper = lane & bit;
      share.first += upper ? values : 0;
      share.count = upper ? share.count - values : share.count < values ? share.count : values;
    }
    return share;
  }

 private:
  template <int kCount, int kBit, class Float, int kLength>
  __device__ static void round(Float (&value)[kLength]) {
    constexpr int kHalf = half(kCount);
    const bool upper = threadIdx.x % kWarp & kBit;
#pragma unroll
    for (int v = 0; v < kHalf; ++v) {
      const Float above = v + kHalf < kCount ? value[v + kHalf] : Float(0);
      const Float kept = upper ? above : value[v], given = upper ? value[v] : above;
      value[v] = kept + __shfl_xor_sync(kAllLanes, given, kBit);
    }
  }
};

}  // namespace gradsim::gpu
