// What is compiled once per instruction set: sums over columns of a few rows.
#pragma once

#include <cstdint>

#include "gradsim/gradients.h"

namespace gradsim::cpu {

struct Strips {
  const char* name;
  // sums[i * tasks + j] += rows[i] . rows[j] for i <= j, over the first n columns. scratch: scratch_bytes(tasks).
  void (*gramian)(Dtype, const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch);
  // sums[i * tasks_b + j] += a[i] . b[j].
  void (*cross)(Dtype, const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b, int64_t n,
                double* sums, void* scratch);
  // out[c] = sum_t weights[t] rows[t][c]; null rows count as zero. scratch as above.
  void (*combine)(Dtype, const void* const* rows, int64_t tasks, const double* weights, int64_t n, void* out,
                  void* scratch);
  // Multiply-adds of float32 in `iterations` turns of a loop that does nothing else.
  int64_t (*multiply_adds)(int64_t iterations, float* sink);
};

// The best set that this processor has; GRADSIM_CPU_ISA=baseline|avx2|avx512|avx512_bf16 asks for a lesser one.
const Strips& strips();

// Bytes of 64-byte aligned scratch that any of the functions needs, for any number of tasks.
int64_t scratch_bytes();

extern const Strips kBaseline;
#if defined(__x86_64__)
extern const Strips kAvx2;
extern const Strips kAvx512;
extern const Strips kAvx512Bf16;
#endif

}  // namespace gradsim::cpu
