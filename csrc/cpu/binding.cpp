// Registers the CPU kernels for the ops that gradsim_kernels/ops.py defines.
#include <chrono>

#include "cpu/inputs.h"
#include "cpu/strips.h"
#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim {

int64_t num_threads() {
  uint32_t threads;
  ok(torch_get_num_threads(&threads), "the number of threads");
  return threads;
}

void run_workers(int64_t workers, void (*work)(void*), void* context) {
  if (workers <= 1) return work(context);
  struct Call {
    void (*work)(void*);
    void* context;
  } call{work, context};
  ok(torch_parallel_for(
         0, workers, 1,
         [](int64_t, int64_t, void* opaque) {  // one call a thread: the workers share out the items themselves
           const Call& call = *static_cast<Call*>(opaque);
           call.work(call.context);
         },
         &call),
     "a parallel loop");
}

namespace cpu {
namespace {

Tensor float64(const std::vector<int64_t>& sizes) { return Tensor::empty(sizes, aoti_torch_dtype_float64()); }

double* square(const Tensor& tensor, const char* name, int64_t G, int64_t T) {
  return dense<double>(tensor, name, aoti_torch_dtype_float64(), {G, T, T});
}

// The visiting order of a call: the one that is given, or else drawn from seed and step.
class Order {
 public:
  explicit Order(Stack& args)
      : given_(args.optional_tensor()), seed_(uint64_t(args.integer())), step_(args.optional_tensor()) {}

  const int64_t* data(int64_t G, int64_t T) {
    if (given_) {
      const int64_t* data = dense<int64_t>(given_, "order", aoti_torch_dtype_int64(), {G, T, T - 1});
      require(order_is_valid(data, G, T), "each row of order must hold every other task once");
      return data;
    }
    require(bool(step_) && 1 <= T && T <= 65536, "without an order there must be a step, and at most 65,536 tasks");
    drawn_.resize(size_t(G * T * (T - 1)));
    random_order(G, T, seed_, uint64_t(*dense<int64_t>(step_, "step", aoti_torch_dtype_int64(), {})), drawn_.data());
    return drawn_.data();
  }

 private:
  const Tensor given_;
  const uint64_t seed_;
  const Tensor step_;
  std::vector<int64_t> drawn_;
};

Surgery surgery_of(double beta, double max_target, double eps, const Tensor& vaccinate, int64_t T) {
  const bool* chosen = vaccinate ? dense<bool>(vaccinate, "vaccinate", aoti_torch_dtype_bool(), {T}) : nullptr;
  return {beta, max_target, eps, chosen};
}

int64_t* corrections_of(const Tensor& corrections, int64_t G, int64_t T) {
  return corrections ? dense<int64_t>(corrections, "corrections", aoti_torch_dtype_int64(), {G, T}) : nullptr;
}

void gramian_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor J = args.tensor(), offsets = args.tensor();
  const Gradients gradients = from_buffer(J, offsets, nullptr);
  Tensor M = float64({gradients.groups, gradients.tasks, gradients.tasks});
  gramian(gradients, M.data<double>());
  stack[0] = M.release();
}

void gramian_list_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const std::vector<Tensor> list = args.tensors();
  const int64_t T = args.integer(), G = args.integer();
  const Tensor group_of = args.tensor();
  const Gradients gradients = from_list(list, T, G, group_of, nullptr);
  Tensor M = float64({G, T, T});
  gramian(gradients, M.data<double>());
  stack[0] = M.release();
}

void cross_gramian_of(const Gradients& a, const Gradients& b, StableIValue* result) {
  Tensor C = float64({a.groups, a.tasks, b.tasks});
  cross_gramian(a, b, C.data<double>());
  *result = C.release();
}

void cross_gramian_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor A = args.tensor(), B = args.tensor(), offsets = args.tensor();
  require(A.dtype() == B.dtype() && A.dim() == 2 && B.dim() == 2 && A.size(1) == B.size(1),
          "A and B must share N and dtype");
  cross_gramian_of(from_buffer(A, offsets, nullptr), from_buffer(B, offsets, nullptr), stack);
}

void cross_gramian_list_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const std::vector<Tensor> A = args.tensors();
  const int64_t Ta = args.integer();
  const std::vector<Tensor> B = args.tensors();
  const int64_t Tb = args.integer(), G = args.integer();
  const Tensor group_of = args.tensor();
  Gradients a = from_list(A, Ta, G, group_of, nullptr), b = from_list(B, Tb, G, group_of, nullptr);
  for (size_t s = 0; s < a.segments.size(); ++s) {  // a parameter that one side lacks altogether contributes nothing
    Segment &x = a.segments[s], &y = b.segments[s];
    if (x.size == 0 || y.size == 0) x.size = y.size = 0;
    require(x.size == y.size && (x.size == 0 || x.dtype == y.dtype), "A and B must have the same parameters");
  }
  cross_gramian_of(a, b, stack);
}

void random_order_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const int64_t G = args.integer(), T = args.integer(), seed = args.integer();
  const Tensor step = args.tensor();
  require(G >= 0 && 1 <= T && T <= 65536, "there must be 1 to 65,536 tasks");
  const int64_t* at = dense<int64_t>(step, "step", aoti_torch_dtype_int64(), {});
  Tensor order = Tensor::empty({G, T, T - 1}, aoti_torch_dtype_int64());
  random_order(G, T, uint64_t(seed), uint64_t(*at), order.data<int64_t>());
  stack[0] = order.release();
}

void order_is_valid_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor order = args.tensor();
  require(order.dim() == 3 && order.size(2) + 1 == order.size(1), "order must be [G, T, T - 1]");
  const int64_t G = order.size(0), T = order.size(1);
  stack[0] = order_is_valid(dense<int64_t>(order, "order", aoti_torch_dtype_int64(), {G, T, T - 1}), G, T);
}

// weights [G, T] for Gramians that are given.
StableIValue weights_of(const Tensor& M, Order& order, double* target, const Surgery& surgery,
                        const Tensor& corrections) {
  const int64_t G = M.size(0), T = M.size(1);
  Tensor weights = float64({G, T});
  gradvac_weights(square(M, "M", G, T), G, T, order.data(G, T), surgery, target, weights.data<double>(),
                  corrections_of(corrections, G, T));
  return weights.release();
}

void pcgrad_weights_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor M = args.tensor();
  Order order(args);
  const double eps = args.real();
  require(M.dim() == 3, "M must be [G, T, T]");
  std::vector<double> target(M.numel(), 0.0);  // PCGrad is GradVac with a target that stays 0
  stack[0] = weights_of(M, order, target.data(), {0.0, 1.0, eps, nullptr}, Tensor());
}

void gradvac_weights_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor M = args.tensor(), target = args.tensor();
  Order order(args);
  const Tensor vaccinate = args.optional_tensor();
  const double beta = args.real(), max_target = args.real(), eps = args.real();
  const Tensor corrections = args.optional_tensor();
  require(M.dim() == 3, "M must be [G, T, T]");
  const int64_t G = M.size(0), T = M.size(1);
  stack[0] = weights_of(M, order, square(target, "target", G, T), surgery_of(beta, max_target, eps, vaccinate, T),
                        corrections);
}

void combine_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor J = args.tensor(), weights = args.tensor(), offsets = args.tensor(), out = args.tensor();
  const Gradients gradients = from_buffer(J, offsets, &out);
  combine(gradients,
          dense<double>(weights, "weights", aoti_torch_dtype_float64(), {gradients.groups, gradients.tasks}));
}

void combine_list_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const std::vector<Tensor> list = args.tensors();
  const Tensor weights = args.tensor(), group_of = args.tensor();
  const std::vector<Tensor> out = args.tensors();
  require(weights.dim() == 2, "weights must be [G, T]");
  const int64_t G = weights.size(0), T = weights.size(1);
  combine(from_list(list, T, G, group_of, &out), dense<double>(weights, "weights", aoti_torch_dtype_float64(), {G, T}));
}

// What gradvac_ and gradvac_list_ share once the gradients are laid out.
void gradvac_of(const Gradients& gradients, const Tensor& target, Order& order, const Tensor& vaccinate, double beta,
                double max_target, double scale, const Tensor& corrections, StableIValue* results) {
  const int64_t G = gradients.groups, T = gradients.tasks;
  Tensor weights = float64({G, T}), M = float64({G, T, T});
  gradvac(gradients, order.data(G, T), surgery_of(beta, max_target, accuracy(gradients), vaccinate, T), scale,
          square(target, "target", G, T), weights.data<double>(), corrections_of(corrections, G, T), M.data<double>());
  results[0] = weights.release();
  results[1] = M.release();
}

void gradvac_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const Tensor J = args.tensor(), target = args.tensor();
  Order order(args);
  const Tensor offsets = args.tensor(), vaccinate = args.optional_tensor();
  const double beta = args.real(), max_target = args.real(), scale = args.real();
  const Tensor corrections = args.optional_tensor(), out = args.tensor();
  gradvac_of(from_buffer(J, offsets, &out), target, order, vaccinate, beta, max_target, scale, corrections, stack);
}

void gradvac_list_op(StableIValue* stack, uint64_t, uint64_t) {
  Stack args(stack);
  const std::vector<Tensor> list = args.tensors();
  const Tensor target = args.tensor();
  Order order(args);
  const Tensor group_of = args.tensor(), vaccinate = args.optional_tensor();
  const double beta = args.real(), max_target = args.real(), scale = args.real();
  const Tensor corrections = args.optional_tensor();
  const std::vector<Tensor> out = args.tensors();
  require(target.dim() == 3, "target must be [G, T, T]");
  const Gradients gradients = from_list(list, target.size(1), target.size(0), group_of, &out);
  gradvac_of(gradients, target, order, vaccinate, beta, max_target, scale, corrections, stack);
}

const struct Registration {
  Registration() {
    TorchLibraryHandle library;
    ok(aoti_torch_library_init_impl("gradsim_kernels_cpu", "CPU", __FILE__, __LINE__, &library), "the library");
    const auto add = [library](const char* name, void (*kernel)(StableIValue*, uint64_t, uint64_t)) {
      ok(torch_library_impl(library, name, kernel, kTorchVersion), name);
    };
    add("gramian", gramian_op);
    add("gramian_list", gramian_list_op);
    add("cross_gramian", cross_gramian_op);
    add("cross_gramian_list", cross_gramian_list_op);
    add("random_order", random_order_op);
    add("order_is_valid", order_is_valid_op);
    add("pcgrad_weights", pcgrad_weights_op);
    add("gradvac_weights", gradvac_weights_op);
    add("combine", combine_op);
    add("combine_list", combine_list_op);
    add("gradvac_", gradvac_op);
    add("gradvac_list_", gradvac_list_op);
  }
} registration;

}  // namespace
}  // namespace cpu
}  // namespace gradsim

extern "C" {

__attribute__((visibility("default"))) int gradsim_abi_version() { return 2; }

__attribute__((visibility("default"))) int gradsim_has_cuda_kernels() {
#ifdef GRADSIM_WITH_CUDA
  return 1;
#else
  return 0;
#endif
}

__attribute__((visibility("default"))) const char* gradsim_cpu_isa() { return gradsim::cpu::strips().name; }

// float32 multiply-adds per second of the calling thread: the other ceiling of the benchmarks, besides memory.
__attribute__((visibility("default"))) double gradsim_fma_rate_probe(int64_t iterations) {
  alignas(64) float sink[16] = {};
  const auto start = std::chrono::steady_clock::now();
  const int64_t done = gradsim::cpu::strips().multiply_adds(iterations, sink);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return double(done) / seconds.count();
}

}  // extern "C"
