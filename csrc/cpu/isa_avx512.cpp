// AVX-512: 32 registers of 16 floats. Chosen at run time, so the whole file may use it and nothing else may.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "cpu/half.h"
#include "cpu/strips.h"
#include "cpu/target.h"

GRADSIM_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

namespace gradsim::cpu {
namespace {

#include "cpu/avx512.inl"
#include "cpu/strips.inl"

}  // namespace

const Strips kAvx512 = {"avx512", gramian_any, cross_any, combine_any, multiply_adds_of};

}  // namespace gradsim::cpu

GRADSIM_TARGET_END
#endif
