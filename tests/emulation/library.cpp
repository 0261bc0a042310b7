// The interface of csrc/include/gradsim/gpu.h for ctypes, on device code that was compiled for the host. Each function
// returns null, or what went wrong.
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "cuda/device.cuh"
#include "gradsim/gpu.h"

using namespace gradsim;

// Mirrored in backend.py. The table of a list: see gradsim_kernels/layout.py.
struct Where {
  const char* base;
  int64_t row_bytes;
  char* out;
  const int64_t* table;
  int64_t tasks, groups, segments, columns, dtypes;
};

struct Rules {
  double beta, max_target, eps, scale;
  const bool* vaccinate;
  const int64_t* order;
  uint64_t seed, step;
  const int64_t* step_at;
  double* target;
  int64_t* corrections;
};

namespace {

gpu::Layout layout_of(const Where& where) {
  gpu::Layout g;
  g.tasks = where.tasks, g.groups = where.groups, g.segments = where.segments, g.columns = where.columns;
  g.dtypes = uint32_t(where.dtypes);
  g.position = where.table;
  if (where.base) {
    g.base = where.base, g.row_bytes = where.row_bytes, g.out = where.out;
    return g;
  }
  const int64_t* section = where.table + where.segments + 1;
  const auto next = [&section](int64_t count) { return std::exchange(section, section + count); };
  g.size = next(g.segments);
  g.group = next(g.segments);
  g.dtype = next(g.segments);
  g.first = next(g.groups + 1);
  g.outs = reinterpret_cast<char* const*>(next(g.segments));
  g.rows = reinterpret_cast<const char* const*>(section);
  return g;
}

gpu::Surgery surgery_of(const Rules& rules) {
  gpu::Surgery s;
  s.beta = rules.beta, s.max_target = rules.max_target, s.eps = rules.eps, s.scale = rules.scale;
  s.vaccinate = rules.vaccinate, s.order = rules.order;
  s.seed = rules.seed, s.step = rules.step, s.step_at = rules.step_at;
  s.target = rules.target, s.corrections = rules.corrections;
  return s;
}

// Device memory as an allocator hands it out: full of what is no number. Exactly as large as asked for.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : memory_(nullptr, std::free) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes)) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    memory_.reset(memory);
  }
  void* get() const { return memory_.get(); }

 private:
  std::unique_ptr<void, void (*)(void*)> memory_;
};

template <class Function>
const char* guarded(const Function& function) {
  static std::string message;
  try {
    function();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

const char* emulated_gramian(const Where* where, double* M) {
  return guarded([=] {
    const gpu::Layout g = layout_of(*where);
    const Workspace workspace(gpu::gramian_workspace(g));
    gpu::gramian(g, M, workspace.get(), nullptr);
  });
}

const char* emulated_cross_gramian(const Where* where_a, const Where* where_b, double* C) {
  return guarded([=] {
    const gpu::Layout a = layout_of(*where_a), b = layout_of(*where_b);
    const Workspace workspace(gpu::cross_gramian_workspace(a, b));
    gpu::cross_gramian(a, b, C, workspace.get(), nullptr);
  });
}

const char* emulated_random_order(int64_t groups, int64_t tasks, uint64_t seed, uint64_t step, const int64_t* step_at,
                                  int64_t* order) {
  return guarded([=] { gpu::random_order(groups, tasks, seed, step, step_at, order, nullptr); });
}

const char* emulated_weights(const double* M, int64_t groups, int64_t tasks, const Rules* rules, double* weights) {
  return guarded([=] {
    const Workspace workspace(gpu::weights_workspace(groups, tasks));
    gpu::weights(M, groups, tasks, surgery_of(*rules), weights, workspace.get(), nullptr);
  });
}

const char* emulated_combine(const Where* where, const double* weights) {
  return guarded([=] { gpu::combine(layout_of(*where), weights, nullptr); });
}

const char* emulated_gradvac(const Where* where, const Rules* rules, double* weights, double* M) {
  return guarded([=] {
    const gpu::Layout g = layout_of(*where);
    const Workspace workspace(gpu::gradvac_workspace(g));
    gpu::gradvac(g, surgery_of(*rules), weights, M, workspace.get(), nullptr);
  });
}

// The names of the launches and memsets since the last call, one a line.
const char* emulated_launches() {
  static std::string text;
  text.clear();
  emulator::Log& log = emulator::Log::get();
  const std::lock_guard<std::mutex> lock(log.mutex);
  for (const std::string& name : log.names) text += name + "\n";
  log.names.clear();
  return text.c_str();
}

}  // extern "C"
#pragma GCC visibility pop
