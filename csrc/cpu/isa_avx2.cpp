// AVX2 with FMA and F16C: 16 registers of 8 floats, so panels are narrower. Chosen at run time.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "cpu/half.h"
#include "cpu/strips.h"
#include "cpu/target.h"

GRADSIM_TARGET("avx2,fma,f16c")

namespace gradsim::cpu {
namespace {

constexpr int kBytes = 32;
constexpr int kOff = 2;  // 8 sums, 4 near rows, 2 far rows
constexpr bool kFuse = false;

inline __m256 load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store_half(__m256 v, uint16_t* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, 0));
}

inline double sum_doubles(__m256d v) {
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return pair[0] + pair[1];
}
inline double sum_floats(__m256 v) {
  const __m128 high = _mm256_extractf128_ps(v, 1);
  return sum_doubles(_mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(high)));
}

#include "cpu/ops.inl"
#include "cpu/strips.inl"

}  // namespace

const Strips kAvx2 = {"avx2", gramian_any, cross_any, combine_any, multiply_adds_of};

}  // namespace gradsim::cpu

GRADSIM_TARGET_END
#endif
