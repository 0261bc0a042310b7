// Cuts a workspace into arrays; from a null one: finds out how large it has to be.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradsim::gpu {

class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t count) {
    T* const result = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += (size_t(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return result;
  }

  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kAlignment = 256;  // whole lines of the caches

  char* memory_;
  size_t bytes_ = 0;
};

}  // namespace gradsim::gpu
