// All pairs of a tile of rows on tensor cores. A lane reads 16 neighbouring bytes of a row, and they serve as they are
// as fragments of the left and of the right operand.
#pragma once

#include "cuda/device.cuh"
#include "cuda/tile_formats.cuh"
#include "cuda/tile_loads.cuh"
#include "cuda/tile_rows.cuh"

namespace gradsim::gpu {

// kLeft blocks of 8 rows times kRight blocks of 8 rows, or, where kRight is 0, the upper triangle of the kLeft blocks
// times themselves.
template <class Format, int kLeft, int kRight>
struct MmaTile {
  static constexpr Dtype kDtype = Format::kDtype;
  static constexpr bool kDiagonal = kRight == 0;
  static constexpr int kRows = 8 * kLeft;
  static constexpr int kBlocks = kLeft + kRight;
  static constexpr int kHeight = Format::kHeight;  // blocks of an instruction's left operand
  static constexpr int kDown = (kLeft + kHeight - 1) / kHeight, kAcross = kDiagonal ? kLeft : kRight;
  static constexpr int kBytes = int(bytes_of_element(kDtype));
  static constexpr int kRunColumns = 4 * kVectorBytes / kBytes;
  // Loads in flight: 8 where two blocks of threads fit a multiprocessor, else 16 where the registers suffice.
  static constexpr int kLoads = kBlocks <= 2 || (kBlocks > 4 && Format::kPartsOfVector == 1) ? 8 : 16;
  static constexpr int kRuns = kLoads / (kBlocks == 3 ? 4 : kBlocks);  // a power of 2: whole lines of the caches
  static constexpr int kColumns = kRuns * kRunColumns, kMaskedColumns = kRunColumns;  // of a step
  static constexpr int kStepsPerFlush = Format::kChain * 16 > kColumns ? Format::kChain * 16 / kColumns : 1;
  static constexpr int kBlocksPerMultiprocessor = kBlocks <= 2 ? 2 : 1;
  using Sum = typename Format::Sum;

  Sum sum[kDown][kAcross][2 * kHeight] = {};
  double total[kDown][kAcross][2 * kHeight] = {};

  // kColumns columns from `begin`, all rows aligned there; else kMaskedColumns, as far as they lie before `end`.
  __device__ void step(const TileRows& rows, bool whole, int64_t begin, int64_t end) {
    const int lane = threadIdx.x % kWarp;
    if (whole) {
      const int64_t column = begin + lane % 4 * (kVectorBytes / kBytes);
      uint4 x[kRuns][kBlocks];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        const char* const row = rows.pointer(8 * block + lane / 4);
#pragma unroll
        for (int run = 0; run < kRuns; ++run) x[run][block] = load_vector<kBytes>(row, column + run * kRunColumns);
      }
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
        multiply(x[run]);
        if ((run + 1) * Format::kPartsOfVector % Format::kChain == 0 && run + 1 < kRuns) flush();
      }
    } else {
      uint4 x[kBlocks];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block)
        x[block] = load_elements<kBytes, 4>(rows.pointer(8 * block + lane / 4), begin, end, lane % 4);
      multiply(x);
    }
  }

  __device__ void flush() {
    if constexpr (!Format::kExact)
      each_tile([&](int m, int n) {
#pragma unroll
        for (int v = 0; v < 2 * kHeight; ++v) {
          total[m][n][v] += sum[m][n][v];
          sum[m][n][v] = 0;
        }
      });
  }

  // call(i, j, sum over the warp's columns) for the pairs that the lane holds, on the diagonal also some with i > j.
  template <class Call>
  __device__ void each(Call call) const {
    const int g = threadIdx.x % kWarp / 4, q = threadIdx.x % 4;
    each_tile([&](int m, int n) {
#pragma unroll
      for (int v = 0; v < 2 * kHeight; ++v) {
        const int i = 8 * (kHeight * m + v / 2) + g, j = 8 * n + 2 * q + v % 2;
        if (i < kRows) call(i, j, Format::kExact ? double(sum[m][n][v]) : total[m][n][v]);
      }
    });
  }

 private:
  template <class Call>
  __device__ static void each_tile(Call call) {
#pragma unroll
    for (int m = 0; m < kDown; ++m)
#pragma unroll
      for (int n = kDiagonal ? kHeight * m : 0; n < kAcross; ++n) call(m, n);
  }

  __device__ void multiply(const uint4 (&x)[kBlocks]) {
#pragma unroll
    for (int part = 0; part < Format::kPartsOfVector; ++part) {
      typename Format::Fragment fragment[kBlocks];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) fragment[block] = Format::fragment(x[block], part);
      each_tile([&](int m, int n) {
        const auto& right = fragment[kDiagonal ? n : kLeft + n];
        if constexpr (kHeight == 1) Format::add_product(sum[m][n], fragment[m], right);
        else if (2 * m + 1 < kLeft) Format::add_product(sum[m][n], fragment[2 * m], fragment[2 * m + 1], right);
        else Format::add_product(sum[m][n], fragment[2 * m], typename Format::Fragment{}, right);
      });
    }
  }
};

}  // namespace gradsim::gpu
