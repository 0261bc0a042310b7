// From the tensors of a call to the kernels' view of them; guards everything that a kernel trusts.
#pragma once

#include "gradsim/gradients.h"
#include "torch_tensor.h"

namespace gradsim::cpu {

// A contiguous CPU tensor with these sizes; its data.
template <class T>
T* dense(const Tensor& tensor, const char* name, int32_t dtype, const std::vector<int64_t>& sizes) {
  bool fits =
      tensor.on_cpu() && tensor.contiguous() && tensor.dtype() == dtype && tensor.dim() == int64_t(sizes.size());
  for (size_t d = 0; fits && d < sizes.size(); ++d) fits = tensor.size(int64_t(d)) == sizes[d];
  require(fits, std::string(name) + " has not the dtype, shape, strides or device that this op takes");
  return tensor.data<T>();
}

// The buffer [T, N] cut at offsets; `out` [N] or none.
Gradients from_buffer(const Tensor& J, const Tensor& offsets, const Tensor* out);

// The tensors of T tasks times P parameters, row-major; `out`: P tensors, or none.
Gradients from_list(const std::vector<Tensor>& gradients, int64_t tasks, int64_t groups, const Tensor& group_of,
                    const std::vector<Tensor>* out);

// eps_M: 2^-52 where all gradients are float64, 2^-23 otherwise.
double accuracy(const Gradients& gradients);

}  // namespace gradsim::cpu
