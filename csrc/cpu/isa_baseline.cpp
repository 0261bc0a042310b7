// What every processor of the architecture has (SSE2, NEON): vectors of 16 bytes in the compiler's own types.
#include <cstdint>

#include "cpu/half.h"
#include "cpu/strips.h"

namespace gradsim::cpu {
namespace {

constexpr int kBytes = 16;
constexpr int kOff = 2;
constexpr bool kFuse = false;

typedef float Floats __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(16)));

inline Floats load_half(const uint16_t* p) {
  return Floats{float16_to_float(p[0]), float16_to_float(p[1]), float16_to_float(p[2]), float16_to_float(p[3])};
}
inline void store_half(Floats v, uint16_t* p) {
  for (int l = 0; l < 4; ++l) p[l] = float_to_float16(v[l]);
}

inline double sum_doubles(Doubles v) { return v[0] + v[1]; }
inline double sum_floats(Floats v) { return (double(v[0]) + double(v[2])) + (double(v[1]) + double(v[3])); }

#include "cpu/ops.inl"
#include "cpu/strips.inl"

}  // namespace

const Strips kBaseline = {"baseline", gramian_any, cross_any, combine_any, multiply_adds_of};

}  // namespace gradsim::cpu
