// What launchers share.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

// A grid of that many blocks.
inline dim3 grid_of(int64_t blocks) {
  if (blocks < 1 || blocks > 0x7fffffff)
    throw std::runtime_error("gradsim_kernels: the gradients are too many for one CUDA launch");
  return dim3(unsigned(blocks));
}

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("gradsim_kernels: CUDA refused ") + what + ": " + cudaGetErrorString(error));
}

// More dynamic shared memory than every device grants unasked has to be asked for, kernel by kernel.
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  if (bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)), "shared memory");
}

}  // namespace gradsim::gpu
