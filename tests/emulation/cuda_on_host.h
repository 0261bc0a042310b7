// Stands in for the CUDA headers (csrc/cuda/device.cuh includes it under GRADSIM_EMULATED): device code compiled for
// the host, every CUDA thread a fiber, every block on one of a few OS threads. x86-64 Linux, g++.
//
// What it finds: missing barriers (thread orders forward, reverse, random), divergent barriers and warp operations,
// deadlocks, reads of shared memory nobody has written (it starts as NaN), misaligned vectors, launch limits; with the
// sanitizers, accesses out of bounds. What it cannot find: a missing __threadfence or acquire (the host's memory is
// ordered more strongly than a GPU's), bank conflicts, anything about speed.
//
// Environment, read at each launch:
//   GRADSIM_EMULATED_ORDER       forward (default), reverse or random:SEED; of blocks, warps and lanes
//   GRADSIM_EMULATED_PROCESSORS  what the runtime reports as multiprocessors (default 3)
//   GRADSIM_EMULATED_THREADS     OS threads, that is blocks that run at the same time (default 3)
//   GRADSIM_EMULATED_SECONDS     wall-clock limit of a launch (default 60)
#pragma once

#include "emulator/language.h"
// The order matters: each builds on the ones before.
#include "emulator/atomics.h"
#include "emulator/block.h"
#include "emulator/fiber.h"
#include "emulator/launch.h"
#include "emulator/math.h"
#include "emulator/memory.h"
#include "emulator/mma.h"
#include "emulator/order.h"
#include "emulator/runtime.h"
#include "emulator/warp.h"
