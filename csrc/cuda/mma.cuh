// The tensor core instructions, and what lies in whose registers. Lane l = 4 g + q holds of A [16, 16] the rows g and
// g + 8, of B [16, 8] the column g, and of each the inner indices 2 q, 2 q + 1 (low) and 2 q + 8, 2 q + 9 (high). The
// inner index may be permuted as long as A and B agree: here a lane's elements are neighbours in memory.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

// d += A B, where d holds D [16, 8] at (g, 2 q), (g, 2 q + 1), (g + 8, 2 q), (g + 8, 2 q + 1).
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef GRADSIM_EMULATED
  emulated_mma_bf16(d, a, b);
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef GRADSIM_EMULATED
  emulated_mma_f16(d, a, b);
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// A [8, 4], B [4, 8]: lane 4 g + q holds (g, q) and (q, g); d holds D [8, 8] at (g, 2 q), (g, 2 q + 1). Rounds like
// fma.
__device__ inline void mma_f64(double (&d)[2], double a, double b) {
#ifdef GRADSIM_EMULATED
  emulated_mma_f64(d, a, b);
#else
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(d[0]), "+d"(d[1])
      : "d"(a), "d"(b));
#endif
}

// Two floats rounded to bfloat16, `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
#ifdef GRADSIM_EMULATED
  const auto round = [](float x) {
    const uint32_t bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : 0x7fffu;
  };
  return round(high) << 16 | round(low);
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

__device__ inline float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace gradsim::gpu
