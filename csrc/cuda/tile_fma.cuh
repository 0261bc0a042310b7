// All pairs of up to 16 float32 rows in the registers of a warp: float32 FMA over short chains, then float64.
#pragma once

#include "cuda/device.cuh"
#include "cuda/halving.cuh"
#include "cuda/pairs.cuh"
#include "cuda/tile_loads.cuh"
#include "cuda/tile_rows.cuh"

namespace gradsim::gpu {

template <int kRows_>
struct FmaDiagonal {
  static constexpr Dtype kDtype = Dtype::kFloat32;
  static constexpr int kRows = kRows_;
  static constexpr int kPairs = int(pair_count(kRows));
  static constexpr int kRuns = kRows <= 4 ? 2 : 1;  // at least 8 loads in flight
  static constexpr int kRunColumns = 128;
  static constexpr int kColumns = kRuns * kRunColumns, kMaskedColumns = kColumns;  // of a step
  static constexpr int kStepsPerFlush = 8 / kRuns;  // at most 8 additions to an accumulator
  static constexpr int kBlocksPerMultiprocessor = kRows <= 8 ? 2 : 1;

  float sum[kPairs] = {};
  double total[Halving<kPairs>::kKept] = {};

  // kColumns columns from `begin`, all rows aligned there; else those that lie before `end`.
  __device__ void step(const TileRows& rows, bool whole, int64_t begin, int64_t end) {
    const int lane = threadIdx.x % kWarp;
    uint4 x[kRuns][kRows];
    if (whole) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const char* const row = rows.pointer(r);
#pragma unroll
        for (int run = 0; run < kRuns; ++run) x[run][r] = load_vector<4>(row, begin + run * kRunColumns + lane * 4);
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const char* const row = rows.pointer(r);
#pragma unroll
        for (int run = 0; run < kRuns; ++run)
          x[run][r] = load_elements<4, kWarp>(row, begin + run * kRunColumns, end, lane);
      }
    }
#pragma unroll
    for (int run = 0; run < kRuns; ++run)
#pragma unroll
      for (int j = 0; j < kRows; ++j)
#pragma unroll
        for (int i = 0; i <= j; ++i) sum[pair_index(i, j)] += dot(x[run][i], x[run][j]);
  }

  __device__ void flush() {
    Halving<kPairs>::add(sum, total);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) sum[p] = 0;
  }

  // call(i, j, sum over the warp's columns) for the lane's share of the pairs.
  template <class Call>
  __device__ void each(Call call) const {
    const Share share = Halving<kPairs>::share();
#pragma unroll
    for (int p = 0; p < Halving<kPairs>::kKept; ++p) {
      if (p >= share.count) continue;
      const Pair pair = pair_at(share.first + p);
      call(int(pair.i), int(pair.j), total[p]);
    }
  }

 private:
  // Four products at a time before they meet the accumulator: a chain a quarter as long.
  __device__ static float dot(const uint4& a, const uint4& b) {
    float sum = __uint_as_float(a.x) * __uint_as_float(b.x);
    sum = fmaf(__uint_as_float(a.y), __uint_as_float(b.y), sum);
    sum = fmaf(__uint_as_float(a.z), __uint_as_float(b.z), sum);
    return fmaf(__uint_as_float(a.w), __uint_as_float(b.w), sum);
  }
};

}  // namespace gradsim::gpu
