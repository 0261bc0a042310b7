// AVX-512 with the bfloat16 dot product: two products a lane and instruction. Only the Gramians of bfloat16 are
// compiled here; the rest is AVX-512's. The instruction takes subnormal inputs for zero; gradients that small have no
// usable square.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "cpu/half.h"
#include "cpu/strips.h"
#include "cpu/target.h"

GRADSIM_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")

namespace gradsim::cpu {
namespace {

#include "cpu/avx512.inl"

struct BFloat16Dot : Converted {
  using Vec = __m512bh;
  using Packed = BFloat16Dot;
  static constexpr int64_t kStep = 32;
  static constexpr int kChain = 8;  // each adds two products

  static inline Vec load(const uint16_t* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
  static inline void keep_row(Vec v, uint16_t* p) { _mm512_storeu_si512(p, reinterpret_cast<__m512i>(v)); }
  static inline Acc fma(Vec a, Vec b, Acc c) {
    return reinterpret_cast<Acc>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(c), a, b));
  }
};

#include "cpu/strips.inl"

void gramian_bf16(Dtype dtype, const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  if (dtype == Dtype::kBFloat16) return gramian_of<BFloat16Dot>(rows, tasks, n, sums, scratch);
  kAvx512.gramian(dtype, rows, tasks, n, sums, scratch);
}

void cross_bf16(Dtype dtype, const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b, int64_t n,
                double* sums, void* scratch) {
  if (dtype == Dtype::kBFloat16) return cross_of<BFloat16Dot>(a, tasks_a, b, tasks_b, n, sums, scratch);
  kAvx512.cross(dtype, a, tasks_a, b, tasks_b, n, sums, scratch);
}

void combine_avx512(Dtype dtype, const void* const* rows, int64_t tasks, const double* weights, int64_t n, void* out,
                    void* scratch) {
  kAvx512.combine(dtype, rows, tasks, weights, n, out, scratch);
}

int64_t multiply_adds_avx512(int64_t iterations, float* sink) { return kAvx512.multiply_adds(iterations, sink); }

}  // namespace

const Strips kAvx512Bf16 = {"avx512_bf16", gramian_bf16, cross_bf16, combine_avx512, multiply_adds_avx512};

}  // namespace gradsim::cpu

GRADSIM_TARGET_END
#endif
