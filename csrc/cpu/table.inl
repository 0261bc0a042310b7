// What strips.h shows of one instruction set.

inline void gramian_any(Dtype dtype, const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return gramian_of<Float16>(rows, tasks, n, sums, scratch);
    case Dtype::kBFloat16:
      return gramian_of<BFloat16>(rows, tasks, n, sums, scratch);
    case Dtype::kFloat32:
      return gramian_of<Float32>(rows, tasks, n, sums, scratch);
    case Dtype::kFloat64:
      return gramian_of<Float64>(rows, tasks, n, sums, scratch);
  }
}

inline void cross_any(Dtype dtype, const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b,
                      int64_t n, double* sums, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return cross_of<Float16>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kBFloat16:
      return cross_of<BFloat16>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kFloat32:
      return cross_of<Float32>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kFloat64:
      return cross_of<Float64>(a, tasks_a, b, tasks_b, n, sums, scratch);
  }
}

inline void combine_any(Dtype dtype, const void* const* rows, int64_t tasks, const double* weights, int64_t n,
                        void* out, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return combine_of<Float16>(rows, tasks, weights, n, out, scratch);
    case Dtype::kBFloat16:
      return combine_of<BFloat16>(rows, tasks, weights, n, out, scratch);
    case Dtype::kFloat32:
      return combine_of<Float32>(rows, tasks, weights, n, out, scratch);
    case Dtype::kFloat64:
      return combine_of<Float64>(rows, tasks, weights, n, out, scratch);
  }
}

inline int64_t multiply_adds_of(int64_t iterations, float* sink) {
  constexpr int kIndependent = 12;  // latency times throughput, on any processor so far
  Float32::Acc sum[kIndependent] = {};
  Float32::Vec x = Float32::load(sink);
  for (int k = 0; k < kIndependent; ++k) sum[k] += float(k);  // or the compiler would compute one of them only
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < kIndependent; ++k) sum[k] = Float32::fma(sum[k], x, x);
  for (int k = 1; k < kIndependent; ++k) sum[0] += sum[k];
  Float32::keep(sum[0], sink);
  return iterations * kIndependent * Float32::kStep;
}
