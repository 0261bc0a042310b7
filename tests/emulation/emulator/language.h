// CUDA's keywords and built-in types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GNUC__)
#error "the emulation of CUDA needs x86-64 Linux and g++"
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local  // a block runs on one OS thread, and no two at the same time
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  uint64_t count() const { return uint64_t(x) * y * z; }
};

#define EMULATED_VECTORS(T, name)                                                    \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                         \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float)
EMULATED_VECTORS(double, double)
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(unsigned, uint)
EMULATED_VECTORS(unsigned short, ushort)
EMULATED_VECTORS(long long, longlong)
EMULATED_VECTORS(unsigned long long, ulonglong)
#undef EMULATED_VECTORS

namespace emulator {

// Where in the device code something was called, for error messages and to see threads that diverge.
struct Site {
  const char* file;
  int line;

  bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
  std::string name() const {
    const char* slash = std::strrchr(file, '/');
    return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
  }
};

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error("emulated CUDA: " + what); }

inline long environment(const char* name, long otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::strtol(value, nullptr, 10) : otherwise;
}

}  // namespace emulator

// The last parameters of every operation whose place matters, and the place.
#define EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EMULATED_HERE \
  emulator::Site { file, line }
