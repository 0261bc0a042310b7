// PTX mma.sync.aligned.m16n8k16.row.col.f32.{bf16,f16}: D [16, 8] += A [16, 16] B [16, 8] (PTX ISA, "Matrix Fragments
// for mma.m16n8k16 with floating point type"); and m8n8k4 in float64.
#pragma once

#include "emulator/math.h"
#include "emulator/warp.h"

namespace emulator {

struct Mma {
  float* d;
  const uint32_t *a, *b;
};

inline float bfloat16_element(uint32_t pair, int half) {
  const uint32_t bits = half ? pair & 0xffff0000u : pair << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float float16_element(uint32_t pair, int half) {
  return emulated_half_to_float(uint16_t(half ? pair >> 16 : pair));
}

// 2^exponent for the exponents that products and sums here have.
inline double power_of_two(int exponent) {
  const uint64_t bits = uint64_t(exponent + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

inline int exponent_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  return int(bits >> 52 & 0x7ff) - 1023;
}

// What tensor cores do, and a little worse, so that what holds here holds there: the products are exact; they and d are
// cut off (not rounded) at one bit below the last bit of the largest, and so is their sum to a float. Blocks of 8.
inline float add_products(float d, const float* a, const float* b) {
  constexpr int kBlock = 8;
  double terms[kBlock + 1] = {d}, largest = std::fabs(d), plain = d;
  for (int k = 0; k < kBlock; ++k) {
    terms[k + 1] = double(a[k]) * double(b[k]);
    largest = std::fmax(largest, std::fabs(terms[k + 1]));
    plain += terms[k + 1];
  }
  if (!std::isfinite(plain) || largest == 0) return float(plain);
  const int last = std::max(exponent_of(largest) - 24, -149);  // exponent of the last bit that is kept
  const double scale = power_of_two(-last);
  int64_t sum = 0;
  for (const double term : terms) sum += int64_t(term * scale);
  int64_t magnitude = sum < 0 ? -sum : sum;
  int shift = 0;
  while (magnitude >> shift >= 1 << 24) ++shift;
  magnitude = magnitude >> shift << shift;
  return float(double(sum < 0 ? -magnitude : magnitude) * power_of_two(last));
}

template <float (*element)(uint32_t, int)>
void run_mma(void* (&operands)[kLanes]) {
  float A[16][16], B[8][16];  // B transposed
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!operands[lane]) fail("mma needs all lanes of the warp: " + current->site.name());
    const Mma& mine = *static_cast<const Mma*>(operands[lane]);
    const unsigned row = lane / 4, column = lane % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < 4; ++r)
        A[row + (r & 1) * 8][column + unsigned(half) + (r >> 1) * 8] = element(mine.a[r], half);
      for (int r = 0; r < 2; ++r) B[row][column + unsigned(half) + r * 8] = element(mine.b[r], half);
    }
  }
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    float* const d = static_cast<const Mma*>(operands[lane])->d;
    for (int r = 0; r < 4; ++r) {
      const float* const a = A[lane / 4 + (r >> 1) * 8];
      const float* const b = B[lane % 4 * 2 + (r & 1)];
      d[r] = add_products(add_products(d[r], a, b), a + 8, b + 8);
    }
  }
}

struct Mma64 {
  double* d;
  double a, b;
};

// m8n8k4 in float64: D [8, 8] += A [8, 4] B [4, 8]; rounds like a chain of fma.
inline void run_mma64(void* (&operands)[kLanes]) {
  const Mma64* lanes[kLanes];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!operands[lane]) fail("mma needs all lanes of the warp: " + current->site.name());
    lanes[lane] = static_cast<const Mma64*>(operands[lane]);
  }
  for (unsigned row = 0; row < 8; ++row)
    for (unsigned column = 0; column < 8; ++column) {
      double& d = lanes[4 * row + column / 2]->d[column % 2];
      for (unsigned k = 0; k < 4; ++k) d = std::fma(lanes[4 * row + k]->a, lanes[4 * column + k]->b, d);
    }
}

}  // namespace emulator

// d += a b, fragments as PTX lays them over the warp.
inline void emulated_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATED_SITE) {
  emulator::Mma mine{d, a, b};
  emulator::together(0xffffffffu, 30, emulator::run_mma<emulator::bfloat16_element>, &mine, EMULATED_HERE);
}
inline void emulated_mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATED_SITE) {
  emulator::Mma mine{d, a, b};
  emulator::together(0xffffffffu, 31, emulator::run_mma<emulator::float16_element>, &mine, EMULATED_HERE);
}
inline void emulated_mma_f64(double (&d)[2], double a, double b, EMULATED_SITE) {
  emulator::Mma64 mine{d, a, b};
  emulator::together(0xffffffffu, 32, emulator::run_mma64, &mine, EMULATED_HERE);
}
