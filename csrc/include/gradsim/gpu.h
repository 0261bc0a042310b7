// The GPU kernels, as the binding and the host emulation of the tests call them. Every call only launches; nothing
// waits, nothing is read back, and nothing depends on how many processors the device has: results are the same on all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradsim/gradients.h"

struct CUstream_st;

namespace gradsim::gpu {

using Stream = CUstream_st*;  // cudaStream_t, without its header

// Where the gradients of all tasks lie: one flat buffer, or tensors as autograd left them (gradsim_kernels/layout.py
// makes the table). Columns are numbered by position: segment s holds the positions [position[s], position[s] +
// size(s)), and position[s + 1] may leave a gap behind them. Segments are sorted by group. All pointers are device
// memory. Values of device tables are not trusted: whatever they hold, no kernel reads or writes outside.
struct Layout {
  int64_t tasks = 0;
  int64_t groups = 0;
  int64_t segments = 0;  // of a buffer: groups
  int64_t columns = 0;   // position[segments]
  uint32_t dtypes = 0;   // bit (1 << Dtype) for each dtype that occurs; a buffer has one

  const int64_t* position = nullptr;  // [segments + 1]; of a buffer: its offsets

  // A buffer: row t starts at base + t * row_bytes; out is null or one row.
  const char* base = nullptr;
  int64_t row_bytes = 0;
  char* out = nullptr;

  // Tensors; all null for a buffer.
  const int64_t* size = nullptr;      // [segments]
  const int64_t* group = nullptr;     // [segments]
  const int64_t* dtype = nullptr;     // [segments], a Dtype
  const int64_t* first = nullptr;     // [groups + 1]: group k owns the segments first[k] to first[k + 1] - 1
  char* const* outs = nullptr;        // [segments]; null: nothing is written
  const char* const* rows = nullptr;  // [segments, tasks]; null: the task has no gradient there
};

// What the weights need besides M.
struct Surgery {
  double beta = 0;
  double max_target = 1;
  double eps = 0;                   // relative accuracy of M
  double scale = 1;                 // multiplies the weights
  const bool* vaccinate = nullptr;  // [tasks]; null: all
  const int64_t* order = nullptr;   // [groups, tasks, tasks - 1]; null: drawn in the kernel from seed and step
  uint64_t seed = 0;
  uint64_t step = 0;
  const int64_t* step_at = nullptr;  // device; read instead of step unless null
  double* target = nullptr;          // [groups, tasks, tasks], updated in place; null: PCGrad
  int64_t* corrections = nullptr;    // [groups, tasks]; null: not wanted
};

// Bytes of device memory that the call needs as workspace; its contents do not matter.
size_t gramian_workspace(const Layout& gradients);
size_t cross_gramian_workspace(const Layout& a, const Layout& b);
size_t weights_workspace(int64_t groups, int64_t tasks);  // 0 for up to 32 tasks
size_t gradvac_workspace(const Layout& gradients);

// M [groups, tasks, tasks], symmetric to the bit.
void gramian(const Layout& gradients, double* M, void* workspace, Stream stream);

// C [groups, a.tasks, b.tasks]; a and b have the same segments, positions and dtypes.
void cross_gramian(const Layout& a, const Layout& b, double* C, void* workspace, Stream stream);

// weights [groups, tasks] from M, times surgery.scale.
void weights(const double* M, int64_t groups, int64_t tasks, const Surgery& surgery, double* weights, void* workspace,
             Stream stream);

// out[n] = sum_t weights[group(n), t] rows[t][n].
void combine(const Layout& gradients, const double* weights, Stream stream);

// Gramian, weights (times surgery.scale) and combine, in at most 4 launches; groups that fit L2 are combined out of it.
void gradvac(const Layout& gradients, const Surgery& surgery, double* weights, double* M, void* workspace,
             Stream stream);

// order [groups, tasks, tasks - 1]: row (k, i) lists the tasks j != i by increasing Philox key
// (gradsim_kernels/philox.py). step as in Surgery.
void random_order(int64_t groups, int64_t tasks, uint64_t seed, uint64_t step, const int64_t* step_at, int64_t* order,
                  Stream stream);

}  // namespace gradsim::gpu
