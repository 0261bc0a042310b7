// float16 and bfloat16, one element at a time: for the last columns of a row, and where no instruction converts them.
// Everything is static: this header is compiled into files with different instruction sets.
#pragma once

#include <cstdint>
#include <cstring>

namespace gradsim::cpu {

static inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float bfloat16_to_float(uint16_t h) { return float_of_bits(uint32_t(h) << 16); }

static inline uint16_t float_to_bfloat16(float value) {  // nearest, ties to even; a NaN stays one
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline float float16_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest < 0x400) {                                                                   // zero, subnormal: exact
    const float magnitude = float(rest) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return float_of_bits(sign | ((rest << 13) + 0x38000000u));
}

static inline uint16_t float_to_float16(float value) {  // nearest, ties to even
  const uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000u) return uint16_t(sign | 0x7e00);
  if (rest >= 0x477ff000u) return uint16_t(sign | 0x7c00);  // rounds to 2^16 or more
  if (rest < 0x38800000u) {  // subnormal: adding 0.5 puts the last bit of float16 at the last bit of float32
    const float shifted = float_of_bits(rest) + 0.5f;
    return uint16_t(sign | (bits_of_float(shifted) - bits_of_float(0.5f)));
  }
  return uint16_t(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13));
}

}  // namespace gradsim::cpu
