// The only file that knows what device code is compiled for: a GPU, or (in the tests) the host with GRADSIM_EMULATED,
// where tests/emulation/cuda_on_host.h stands in for the CUDA headers and runs every thread of a block as a fiber.
#pragma once

#ifdef GRADSIM_EMULATED
#include "cuda_on_host.h"
#else
#include <cuda_runtime.h>
#endif

#include <cstdint>
#include <stdexcept>
#include <string>

#define GRADSIM_HOST_DEVICE __host__ __device__

// The shared memory whose size the launch names, as T* name, aligned to 16 bytes.
#ifdef GRADSIM_EMULATED
#define GRADSIM_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(emulated_dynamic_shared())
#else
#define GRADSIM_DYNAMIC_SHARED(T, name)                         \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)
#endif

#ifdef GRADSIM_EMULATED
#define GRADSIM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  emulate_launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#else
// Names of template instances with commas go into parentheses: GRADSIM_LAUNCH((kernel<float, 8>), ...).
#define GRADSIM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
  do {                                                                                                 \
    kernel<<<(grid), (block), (shared_bytes), reinterpret_cast<cudaStream_t>(stream)>>>(__VA_ARGS__);  \
    const cudaError_t launched = cudaGetLastError();                                                   \
    if (launched != cudaSuccess)                                                                       \
      throw std::runtime_error(std::string("gradsim_kernels: a CUDA kernel could not be launched: ") + \
                               cudaGetErrorString(launched));                                          \
  } while (false)
#endif

namespace gradsim::gpu {

constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Memory that no kernel of the launch writes.
template <class T>
__device__ inline T load_readonly(const T* at) {
#ifdef GRADSIM_EMULATED
  return *at;
#else
  return __ldg(at);
#endif
}

template <class T>
__device__ inline T* load_readonly(T* const* at) {
#ifdef GRADSIM_EMULATED
  return *at;
#else
  return reinterpret_cast<T*>(__ldg(reinterpret_cast<const unsigned long long*>(at)));
#endif
}

// A pointer that comes out of a table could be to anything, as far as the compiler knows; loads from what is known to
// be global memory are faster.
template <class T>
__device__ inline T* global_memory(T* at) {
#ifndef GRADSIM_EMULATED
  __builtin_assume(__isGlobal(at));
#endif
  return at;
}

// Memory that another block of the launch has written: not from this processor's L1.
template <class T>
__device__ inline T load_from_l2(const T* at) {
#ifdef GRADSIM_EMULATED
  return *at;
#else
  return __ldcg(at);
#endif
}

}  // namespace gradsim::gpu
