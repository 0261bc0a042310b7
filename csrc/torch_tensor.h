// Tensors and argument stacks on top of the C interface: what every binding needs.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gradsim/gradients.h"
#include "torch_shim.h"

namespace gradsim {

constexpr uint64_t kTorchVersion = uint64_t(2) << 56 | uint64_t(10) << 48;  // the interface these files are written for

inline void ok(AOTITorchError error, const char* what) {
  if (error) throw std::runtime_error(std::string("gradsim_kernels: LibTorch refused ") + what);
}

inline void require(bool condition, const std::string& sentence) {
  if (!condition) throw std::runtime_error("gradsim_kernels: " + sentence);
}

// Owns a handle.
class Tensor {
 public:
  explicit Tensor(AtenTensorHandle handle = nullptr) : handle_(handle) {}
  explicit Tensor(StableIValue value) : handle_(reinterpret_cast<AtenTensorHandle>(value)) {}
  Tensor(Tensor&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Tensor() {
    if (handle_) aoti_torch_delete_tensor_object(handle_);
  }

  static Tensor empty(const std::vector<int64_t>& sizes, int32_t dtype,
                      int32_t device_type = aoti_torch_device_type_cpu(), int32_t device_index = 0) {
    std::vector<int64_t> strides(sizes.size());
    int64_t stride = 1;
    for (size_t d = sizes.size(); d-- > 0; stride *= sizes[d]) strides[d] = stride;
    Tensor result;
    ok(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), dtype, device_type, device_index,
                                &result.handle_),
       "a new tensor");
    return result;
  }

  explicit operator bool() const { return handle_ != nullptr; }
  int64_t dim() const { return get(aoti_torch_get_dim, "dim"); }
  int64_t numel() const { return get(aoti_torch_get_numel, "numel"); }
  int64_t size(int64_t d) const {
    int64_t value;
    ok(aoti_torch_get_size(handle_, d, &value), "size");
    return value;
  }
  int64_t stride(int64_t d) const {
    int64_t value;
    ok(aoti_torch_get_stride(handle_, d, &value), "stride");
    return value;
  }
  int32_t dtype() const {
    int32_t value;
    ok(aoti_torch_get_dtype(handle_, &value), "dtype");
    return value;
  }
  int32_t device_type() const {
    int32_t value;
    ok(aoti_torch_get_device_type(handle_, &value), "device");
    return value;
  }
  int32_t device_index() const {
    int32_t value;
    ok(aoti_torch_get_device_index(handle_, &value), "device index");
    return value;
  }
  bool on_cpu() const { return device_type() == aoti_torch_device_type_cpu(); }
  bool contiguous() const {
    bool value;
    ok(aoti_torch_is_contiguous(handle_, &value), "is_contiguous");
    return value;
  }
  void* raw() const {
    void* value;
    ok(aoti_torch_get_data_ptr(handle_, &value), "data_ptr");
    return value;
  }
  template <class T>
  T* data() const {
    return static_cast<T*>(raw());
  }
  StableIValue release() {
    const StableIValue value = reinterpret_cast<StableIValue>(handle_);
    handle_ = nullptr;
    return value;
  }

 private:
  int64_t get(AOTITorchError (*function)(AtenTensorHandle, int64_t*), const char* what) const {
    int64_t value;
    ok(function(handle_, &value), what);
    return value;
  }

  AtenTensorHandle handle_;
};

// The arguments of a boxed kernel: owned by it, in the order of the schema.
class Stack {
 public:
  explicit Stack(StableIValue* values) : values_(values) {}

  Tensor tensor() { return Tensor(next()); }
  int64_t integer() { return int64_t(next()); }
  double real() {
    const StableIValue bits = next();
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
  Tensor optional_tensor() {
    StableIValue* inner = reinterpret_cast<StableIValue*>(next());
    if (!inner) return Tensor();
    Tensor tensor(*inner);
    delete inner;
    return tensor;
  }
  std::vector<Tensor> tensors() {
    const StableListHandle list = reinterpret_cast<StableListHandle>(next());
    struct Guard {
      StableListHandle list;
      ~Guard() { torch_delete_list(list); }
    } guard{list};
    size_t size;
    ok(torch_list_size(list, &size), "a list");
    std::vector<Tensor> items;
    items.reserve(size);
    for (size_t i = 0; i < size; ++i) {
      StableIValue item;
      ok(torch_list_get_item(list, i, &item), "an item of a list");
      items.emplace_back(item);
    }
    return items;
  }

 private:
  StableIValue next() { return values_[at_++]; }

  StableIValue* values_;
  size_t at_ = 0;
};

inline Dtype dtype_of(const Tensor& tensor, const char* name) {
  const int32_t dtype = tensor.dtype();
  if (dtype == aoti_torch_dtype_float32()) return Dtype::kFloat32;
  if (dtype == aoti_torch_dtype_bfloat16()) return Dtype::kBFloat16;
  if (dtype == aoti_torch_dtype_float16()) return Dtype::kFloat16;
  require(dtype == aoti_torch_dtype_float64(), std::string(name) + " must be float16, bfloat16, float32 or float64");
  return Dtype::kFloat64;
}

}  // namespace gradsim
