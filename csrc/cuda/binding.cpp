// Registers the CUDA kernels for the ops that gradsim_kernels/cuda.py defines.
#include "cuda/inputs.h"
#include "gradsim/gpu.h"

namespace gradsim::gpu {
namespace {

Where where_of(Stack& args) {
  Where where;
  where.J = args.optional_tensor();
  where.table = args.tensor();
  where.tasks = args.integer(), where.groups = args.integer(), where.segments = args.integer();
  where.columns = args.integer(), where.dtypes = args.integer();
  return where;
}

// The arguments that `_SURGERY` in cuda.py lists; keeps their tensors.
struct Rules {
  Tensor target, order, step_at, vaccinate, corrections;
  Surgery surgery;

  explicit Rules(Stack& args) {
    target = args.optional_tensor(), order = args.optional_tensor();
    surgery.seed = uint64_t(args.integer()), surgery.step = uint64_t(args.integer());
    step_at = args.optional_tensor(), vaccinate = args.optional_tensor();
    surgery.beta = args.real(), surgery.max_target = args.real();
    surgery.eps = args.real(), surgery.scale = args.real();
    corrections = args.optional_tensor();
  }

  const Surgery& checked(const Device& device, int64_t G, int64_t T) {
    const int32_t int64 = aoti_torch_dtype_int64();
    surgery.target = dense<double>(device, target, "target", aoti_torch_dtype_float64(), {G, T, T});
    surgery.order = dense<int64_t>(device, order, "order", int64, {G, T, T - 1});
    surgery.step_at = dense<int64_t>(device, step_at, "step", int64, {});
    surgery.vaccinate = dense<bool>(device, vaccinate, "vaccinate", aoti_torch_dtype_bool(), {T});
    surgery.corrections = dense<int64_t>(device, corrections, "corrections", int64, {G, T});
    return surgery;
  }
};

void gramian_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Where where = where_of(args);
  const Device device(where.table);
  const Layout g = layout_of(device, where, nullptr);
  const Tensor workspace = device.workspace(gramian_workspace(g));
  Tensor M = device.float64({g.groups, g.tasks, g.tasks});
  gramian(g, M.data<double>(), workspace.raw(), device.stream());
  stack[0] = M.release();
}

void cross_gramian_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  Where a, b;
  for (Where* where : {&a, &b}) {
    where->J = args.optional_tensor();
    where->table = args.tensor();
    where->tasks = args.integer();
  }
  a.groups = b.groups = args.integer();
  a.segments = b.segments = args.integer();
  a.columns = b.columns = args.integer();
  a.dtypes = b.dtypes = args.integer();
  require(bool(a.J) == bool(b.J), "A and B must be both buffers or both lists");
  const Device device(a.table);
  const Layout left = layout_of(device, a, nullptr), right = layout_of(device, b, nullptr);
  const Tensor workspace = device.workspace(cross_gramian_workspace(left, right));
  Tensor C = device.float64({left.groups, left.tasks, right.tasks});
  cross_gramian(left, right, C.data<double>(), workspace.raw(), device.stream());
  stack[0] = C.release();
}

void random_order_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const int64_t G = args.integer(), T = args.integer(), seed = args.integer();
  const Tensor step = args.tensor();
  require(G >= 0 && 1 <= T && T <= 65536, "there must be 1 to 65,536 tasks");
  const Device device(step);
  const int64_t* at = dense<int64_t>(device, step, "step", aoti_torch_dtype_int64(), {});
  Tensor order = device.empty({G, T, T - 1}, aoti_torch_dtype_int64());
  random_order(G, T, uint64_t(seed), 0, at, order.data<int64_t>(), device.stream());
  stack[0] = order.release();
}

void weights_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor M = args.tensor();
  Rules rules(args);
  require(M.dim() == 3 && M.size(1) > 0, "M must be [G, T, T]");
  const Device device(M);
  const int64_t G = M.size(0), T = M.size(1);
  const double* entries = dense<double>(device, M, "M", aoti_torch_dtype_float64(), {G, T, T});
  const Tensor workspace = device.workspace(weights_workspace(G, T));
  Tensor result = device.float64({G, T});
  weights(entries, G, T, rules.checked(device, G, T), result.data<double>(), workspace.raw(), device.stream());
  stack[0] = result.release();
}

void combine_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Where where = where_of(args);
  const Tensor weights = args.tensor(), out = args.optional_tensor();
  const Device device(where.table);
  const Layout g = layout_of(device, where, &out);
  const double* w = dense<double>(device, weights, "weights", aoti_torch_dtype_float64(), {g.groups, g.tasks});
  combine(g, w, device.stream());
}

void gradvac_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Where where = where_of(args);
  Rules rules(args);
  const Tensor out = args.optional_tensor();
  const Device device(where.table);
  const Layout g = layout_of(device, where, &out);
  const Surgery& surgery = rules.checked(device, g.groups, g.tasks);
  const Tensor workspace = device.workspace(gradvac_workspace(g));
  Tensor weights = device.float64({g.groups, g.tasks}), M = device.float64({g.groups, g.tasks, g.tasks});
  gradvac(g, surgery, weights.data<double>(), M.data<double>(), workspace.raw(), device.stream());
  stack[0] = weights.release();
  stack[1] = M.release();
}

const struct Registration {
  Registration() {
    TorchLibraryHandle library;
    ok(aoti_torch_library_init_impl("gradsim_kernels_cuda", "CUDA", __FILE__, __LINE__, &library), "the library");
    const auto add = [library](const char* name, void (*kernel)(StableIValue*, uint64_t, uint64_t)) {
      ok(torch_library_impl(library, name, kernel, kTorchVersion), name);
    };
    add("gramian", gramian_op);
    add("cross_gramian", cross_gramian_op);
    add("random_order", random_order_op);
    add("weights", weights_op);
    add("combine", combine_op);
    add("gradvac", gradvac_op);
  }
} registration;

}  // namespace
}  // namespace gradsim::gpu
