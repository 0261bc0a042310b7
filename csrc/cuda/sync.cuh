// How blocks of one launch tell each other that something in memory is complete.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

#ifdef GRADSIM_EMULATED
__device__ inline unsigned load_acquire(const unsigned* at) { return emulated_load_acquire(at); }
__device__ inline void store_release(unsigned* at, unsigned value) { emulated_store_release(at, value); }
#else
__device__ inline unsigned load_acquire(const unsigned* at) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

__device__ inline void store_release(unsigned* at, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
#endif

// Whether this block is the last of `count` to arrive at the counter, which starts at 0: then all that the blocks wrote
// before is complete and visible to it. By all threads; `last` is shared memory.
__device__ inline bool arrives_last(unsigned* counter, unsigned count, bool& last) {
  __syncthreads();  // the block has written all
  if (threadIdx.x == 0) {
    __threadfence();  // and other blocks see it before they see the count
    last = atomicAdd(counter, 1u) + 1 == count;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// The other way: everything that this block has written is visible to whoever sees the flag. By all threads.
__device__ inline void raise_flag(unsigned* flag) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    store_release(flag, 1);
  }
}

// Returns once the flag is up. By all threads. Whoever raises it must be running or have run.
__device__ inline void wait_for_flag(const unsigned* flag) {
  if (threadIdx.x == 0)
    for (unsigned nanoseconds = 32; load_acquire(flag) == 0; nanoseconds = min(2 * nanoseconds, 256u))
      __nanosleep(nanoseconds);
  __syncthreads();
}

}  // namespace gradsim::gpu
