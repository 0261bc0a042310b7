// What the two AVX-512 files share: the shape of a panel, and the Ops of ops.inl on 64-byte vectors.

constexpr int kBytes = 64;
constexpr int kOff = 4;
constexpr bool kFuse = true;  // 10 + 16 sums, 4 near rows and 1 far row: 31 registers

inline __m512 load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store_half(__m512 v, uint16_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, 0));
}

inline double sum_doubles(__m512d v) { return _mm512_reduce_add_pd(v); }
inline double sum_floats(__m512 v) {
  const __m256 high = _mm512_extractf32x8_ps(v, 1);
  return sum_doubles(_mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(high)));
}

#include "cpu/ops.inl"
