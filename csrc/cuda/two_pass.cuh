// What gradvac() uses of gramian() and weights() for more than 32 tasks: the reduction of the Gramian sets the counters
// to 0 by which the blocks of the weights count, and saves a launch.
#pragma once

#include "gradsim/gpu.h"

namespace gradsim::gpu {

// [groups], in the workspace of weights().
unsigned* arrival_counters(void* workspace, int64_t groups, int64_t tasks);

// gramian(), and zeros in counters [groups].
void gramian_and_counters(const Layout& gradients, double* M, void* workspace, unsigned* counters, Stream stream);

// weights() for more than 32 tasks, with the counters at 0.
void weights_after_counters(const double* M, int64_t groups, int64_t tasks, const Surgery& surgery, double* weights,
                            void* workspace, Stream stream);

}  // namespace gradsim::gpu
