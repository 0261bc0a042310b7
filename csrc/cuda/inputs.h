// From the tensors of a call to the kernels' view of them; guards everything that a kernel trusts.
#pragma once

#include "gradsim/gpu.h"
#include "torch_tensor.h"

namespace gradsim::gpu {

// While it lives, the tensor's device is the current one; its stream is the one that torch uses there.
class Device {
 public:
  explicit Device(const Tensor& tensor) {
    require(aoti_torch_device_type_cuda && aoti_torch_create_cuda_guard && aoti_torch_get_current_cuda_stream,
            "this torch has no CUDA");
    type_ = aoti_torch_device_type_cuda();
    require(tensor.device_type() == type_, "the tensors of this call must be on a GPU");
    index_ = tensor.device_index();
    ok(aoti_torch_create_cuda_guard(index_, &guard_), "a device guard");
  }
  Device(const Device&) = delete;
  ~Device() { aoti_torch_delete_cuda_guard(guard_); }

  Stream stream() const {
    void* stream;
    ok(aoti_torch_get_current_cuda_stream(index_, &stream), "the current stream");
    return static_cast<Stream>(stream);
  }

  bool has(const Tensor& tensor) const { return tensor.device_type() == type_ && tensor.device_index() == index_; }

  Tensor empty(const std::vector<int64_t>& sizes, int32_t dtype) const {
    return Tensor::empty(sizes, dtype, type_, index_);
  }
  Tensor float64(const std::vector<int64_t>& sizes) const { return empty(sizes, aoti_torch_dtype_float64()); }
  // Torch hands memory on to later calls on the stream only, and keeps it for the replays of a graph that is captured.
  Tensor workspace(size_t bytes) const { return float64({int64_t((bytes + 7) / 8)}); }

 private:
  int32_t type_ = 0, index_ = 0;
  CUDAGuardHandle guard_ = nullptr;
};

// A contiguous tensor on the device with these sizes; its data. Null for a tensor that is not given.
template <class T>
T* dense(const Device& device, const Tensor& tensor, const char* name, int32_t dtype,
         const std::vector<int64_t>& sizes) {
  if (!tensor) return nullptr;
  bool fits =
      device.has(tensor) && tensor.contiguous() && tensor.dtype() == dtype && tensor.dim() == int64_t(sizes.size());
  for (size_t d = 0; fits && d < sizes.size(); ++d) fits = tensor.size(int64_t(d)) == sizes[d];
  require(fits, std::string(name) + " has not the dtype, shape, strides or device that this op takes");
  return tensor.data<T>();
}

// What the schemas of gradsim_kernels/cuda.py call the gradients.
struct Where {
  Tensor J, table;
  int64_t tasks, groups, segments, columns, dtypes;
};

// J, or a table of tensors (gradsim_kernels/layout.py); `out`: of J, or null.
Layout layout_of(const Device& device, const Where& where, const Tensor* out);

}  // namespace gradsim::gpu
