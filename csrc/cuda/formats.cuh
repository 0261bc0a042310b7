// The dtypes of gradients as the combine reads and writes them: 16 bytes at a time or one element, each sum in float32
// (float64 for float64), rounded once at the end.
#pragma once

#include "cuda/device.cuh"
#include "gradsim/gradients.h"

namespace gradsim::gpu {

struct FormatFloat32 {
  using Element = float;
  using Sum = float;

  __device__ static float widen(float x) { return x; }
  __device__ static float narrow(float x) { return x; }
  __device__ static void unpack(const uint4& v, float (&x)[4]) {
    x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y);
    x[2] = __uint_as_float(v.z), x[3] = __uint_as_float(v.w);
  }
  __device__ static uint4 pack(const float (&x)[4]) {
    return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
  }
};

struct FormatFloat64 {
  using Element = double;
  using Sum = double;

  __device__ static double widen(double x) { return x; }
  __device__ static double narrow(double x) { return x; }
  __device__ static double join(uint32_t low, uint32_t high) {
    return __longlong_as_double(static_cast<long long>(uint64_t(high) << 32 | low));
  }
  __device__ static void unpack(const uint4& v, double (&x)[2]) { x[0] = join(v.x, v.y), x[1] = join(v.z, v.w); }
  __device__ static uint4 pack(const double (&x)[2]) {
    const uint64_t a = uint64_t(__double_as_longlong(x[0])), b = uint64_t(__double_as_longlong(x[1]));
    return make_uint4(uint32_t(a), uint32_t(a >> 32), uint32_t(b), uint32_t(b >> 32));
  }
};

// What float16 and bfloat16 share; Half: widen and narrow.
template <class Half>
struct Halves {
  using Element = uint16_t;
  using Sum = float;

  __device__ static void unpack(const uint4& v, float (&x)[8]) {
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      x[2 * w] = Half::widen(uint16_t(words[w]));
      x[2 * w + 1] = Half::widen(uint16_t(words[w] >> 16));
    }
  }
  __device__ static uint32_t pair(float low, float high) {
    return uint32_t(Half::narrow(high)) << 16 | Half::narrow(low);
  }
  __device__ static uint4 pack(const float (&x)[8]) {
    return make_uint4(pair(x[0], x[1]), pair(x[2], x[3]), pair(x[4], x[5]), pair(x[6], x[7]));
  }
};

struct FormatBFloat16 : Halves<FormatBFloat16> {
  __device__ static float widen(uint16_t x) { return __uint_as_float(uint32_t(x) << 16); }
  __device__ static uint16_t narrow(float x) {  // to nearest, ties to even; a NaN stays one
    const uint32_t bits = __float_as_uint(x);
    return x == x ? uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16) : uint16_t(0x7fff);
  }
};

struct FormatFloat16 : Halves<FormatFloat16> {
#ifdef GRADSIM_EMULATED
  __device__ static float widen(uint16_t x) { return emulated_half_to_float(x); }
  __device__ static uint16_t narrow(float x) { return emulated_float_to_half(x); }
#else
  __device__ static float widen(uint16_t x) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x));
    return value;
  }
  __device__ static uint16_t narrow(float x) {
    uint16_t value;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value) : "f"(x));
    return value;
  }
#endif
};

template <Dtype kDtype>
struct FormatOfDtype;
template <>
struct FormatOfDtype<Dtype::kFloat16> {
  using Format = FormatFloat16;
};
template <>
struct FormatOfDtype<Dtype::kBFloat16> {
  using Format = FormatBFloat16;
};
template <>
struct FormatOfDtype<Dtype::kFloat32> {
  using Format = FormatFloat32;
};
template <>
struct FormatOfDtype<Dtype::kFloat64> {
  using Format = FormatFloat64;
};
template <Dtype kDtype>
using FormatOf = typename FormatOfDtype<kDtype>::Format;

// call(Format()) with the format of a dtype; nothing for a number that is none.
template <class Call>
GRADSIM_HOST_DEVICE void with_format(Dtype dtype, const Call& call) {
  switch (dtype) {
    case Dtype::kFloat16:
      return call(FormatFloat16());
    case Dtype::kBFloat16:
      return call(FormatBFloat16());
    case Dtype::kFloat32:
      return call(FormatFloat32());
    case Dtype::kFloat64:
      return call(FormatFloat64());
  }
}

}  // namespace gradsim::gpu
