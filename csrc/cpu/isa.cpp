// Which instruction set: asked once.
#include <cstdlib>
#include <cstring>

#include "cpu/strips.h"

namespace gradsim::cpu {

namespace {

const Strips& best() {
  const char* wish = std::getenv("GRADSIM_CPU_ISA");
  [[maybe_unused]] const auto allowed = [wish](const Strips& strips) {
    return !wish || !*wish || !std::strcmp(wish, strips.name);
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // and with AVX2 always F16C
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (bf16 && allowed(kAvx512Bf16)) return kAvx512Bf16;
  if (avx512 && allowed(kAvx512)) return kAvx512;
  if (avx2 && allowed(kAvx2)) return kAvx2;
#endif
  return kBaseline;
}

}  // namespace

const Strips& strips() {
  static const Strips& chosen = best();
  return chosen;
}

int64_t scratch_bytes() {
  return 64 * 64 * 64 + 2 * 64 * 256 * 8;  // the vector sums of a tile and the kept rows of two (panels.inl)
}

}  // namespace gradsim::cpu
