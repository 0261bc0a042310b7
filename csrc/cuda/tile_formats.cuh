// How tensor cores multiply rows of each dtype without losing what the accuracy of M needs. They cut off, not round,
// when they add, always towards zero: sums of squares would drift. So every instruction starts from zero, its 16
// products are added to the accumulator by a float32 addition, which rounds, and after kChain of them float64 takes
// over.
#pragma once

#include "cuda/device.cuh"
#include "cuda/mma.cuh"
#include "gradsim/gradients.h"

namespace gradsim::gpu {

__device__ inline void add_to(float (&sum)[4], const float (&product)[4]) {
#pragma unroll
  for (int v = 0; v < 4; ++v) sum[v] += product[v];
}

// bfloat16 and float16 are fragments as they lie in memory.
template <Dtype kDtype_>
struct Half {
  static constexpr Dtype kDtype = kDtype_;
  static constexpr int kHeight = 2;
  static constexpr int kPartsOfVector = 2;  // 8 elements a lane, 4 an instruction
  static constexpr int kChain = 8;
  static constexpr bool kExact = false;
  using Sum = float;

  struct Fragment {
    uint32_t low = 0, high = 0;
  };

  __device__ static Fragment fragment(const uint4& x, int part) {
    return part == 0 ? Fragment{x.x, x.y} : Fragment{x.z, x.w};
  }

  __device__ static void add_product(float (&sum)[4], const Fragment& upper, const Fragment& lower,
                                     const Fragment& right) {
    const uint32_t a[4] = {upper.low, lower.low, upper.high, lower.high}, b[2] = {right.low, right.high};
    float product[4] = {};
    if constexpr (kDtype == Dtype::kBFloat16) mma_bf16(product, a, b);
    else mma_f16(product, a, b);
    add_to(sum, product);
  }
};

using Float16 = Half<Dtype::kFloat16>;
using BFloat16 = Half<Dtype::kBFloat16>;

// float32 x = b1 + b2 + b3 exactly, each a bfloat16 of 8 bits. Of the nine products, b2 b3, b3 b2 and b3 b3 together
// are no more than 2^-24 of the whole and are left out. The small ones come first, so that what is cut off is small,
// too.
struct SplitFloat32 {
  static constexpr Dtype kDtype = Dtype::kFloat32;
  static constexpr int kHeight = 2;
  static constexpr int kPartsOfVector = 1;
  static constexpr int kChain = 4;
  static constexpr bool kExact = false;
  using Sum = float;

  struct Fragment {
    uint32_t low[3] = {}, high[3] = {};
  };

  __device__ static Fragment fragment(const uint4& x, int) {
    Fragment f;
    split(x.x, x.y, f.low);
    split(x.z, x.w, f.high);
    return f;
  }

  __device__ static void add_product(float (&sum)[4], const Fragment& upper, const Fragment& lower,
                                     const Fragment& right) {
    constexpr int kTerms[6][2] = {{0, 2}, {2, 0}, {1, 1}, {0, 1}, {1, 0}, {0, 0}};
    float product[4] = {};
#pragma unroll
    for (int term = 0; term < 6; ++term) {
      const int l = kTerms[term][0], r = kTerms[term][1];
      const uint32_t a[4] = {upper.low[l], lower.low[l], upper.high[l], lower.high[l]};
      const uint32_t b[2] = {right.low[r], right.high[r]};
      mma_bf16(product, a, b);
    }
    add_to(sum, product);
  }

 private:
  __device__ static void split(uint32_t first, uint32_t second, uint32_t (&parts)[3]) {
    float low = __uint_as_float(first), high = __uint_as_float(second);
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      parts[part] = pack_bf16(low, high);
      low -= low_bf16(parts[part]), high -= high_bf16(parts[part]);
    }
  }
};

// float64 tensor cores are IEEE fused multiply-adds.
struct Float64 {
  static constexpr Dtype kDtype = Dtype::kFloat64;
  static constexpr int kHeight = 1;
  static constexpr int kPartsOfVector = 2;
  static constexpr int kChain = 1;
  static constexpr bool kExact = true;
  using Sum = double;
  using Fragment = double;

  __device__ static double fragment(const uint4& x, int part) {
    const uint32_t low = part == 0 ? x.x : x.z, high = part == 0 ? x.y : x.w;
    return __longlong_as_double(static_cast<long long>(uint64_t(high) << 32 | low));
  }

  __device__ static void add_product(double (&sum)[2], double left, double right) { mma_f64(sum, left, right); }
};

}  // namespace gradsim::gpu
