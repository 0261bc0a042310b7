#include "cpu/inputs.h"

#include <algorithm>
#include <numeric>

namespace gradsim::cpu {

namespace {

void index_groups(Gradients& gradients) {
  gradients.first.assign(gradients.groups + 1, 0);
  for (const Segment& segment : gradients.segments) ++gradients.first[segment.group + 1];
  std::partial_sum(gradients.first.begin(), gradients.first.end(), gradients.first.begin());
}

}  // namespace

Gradients from_buffer(const Tensor& J, const Tensor& offsets, const Tensor* out) {
  require(J.on_cpu() && J.dim() == 2 && J.size(0) > 0, "J must be a CPU tensor [T, N]");
  const int64_t T = J.size(0), N = J.size(1), row = J.stride(0);
  require(N <= 1 || J.stride(1) == 1, "J must have unit stride along N");
  const Dtype dtype = dtype_of(J, "J");
  require(offsets.dim() == 1 && offsets.size(0) > 0, "offsets must be [G + 1]");
  const int64_t G = offsets.size(0) - 1;
  const int64_t* bounds = dense<int64_t>(offsets, "offsets", aoti_torch_dtype_int64(), {G + 1});
  char* to = nullptr;
  if (out) {
    require(out->on_cpu() && out->dim() == 1 && out->size(0) == N && out->dtype() == J.dtype() && out->contiguous(),
            "out must be [N], contiguous, with the dtype of J");
    to = out->data<char>();
  }
  const char* from = J.data<const char>();
  const int64_t bytes = bytes_of(dtype);
  Gradients gradients;
  gradients.tasks = T;
  gradients.groups = G;
  gradients.table.resize(G * T);
  for (int64_t k = 0; k < G; ++k) {
    require(0 <= bounds[k] && bounds[k] <= bounds[k + 1] && bounds[k + 1] <= N, "offsets must rise from 0 to N");
    for (int64_t t = 0; t < T; ++t) gradients.table[k * T + t] = from + (t * row + bounds[k]) * bytes;
    gradients.segments.push_back(
        {k, bounds[k + 1] - bounds[k], dtype, &gradients.table[k * T], to ? to + bounds[k] * bytes : nullptr});
  }
  index_groups(gradients);
  return gradients;
}

Gradients from_list(const std::vector<Tensor>& list, int64_t tasks, int64_t groups, const Tensor& group_of,
                    const std::vector<Tensor>* out) {
  require(tasks > 0 && groups >= 0 && group_of.dim() == 1, "there must be a task, and group_of must be [P]");
  const int64_t P = group_of.size(0);
  const int64_t* owner = dense<int64_t>(group_of, "group_of", aoti_torch_dtype_int64(), {P});
  require(int64_t(list.size()) == tasks * P, "gradients must hold T times P tensors");
  require(!out || int64_t(out->size()) == P, "out must hold P tensors");
  std::vector<int64_t> order(P);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [owner](int64_t a, int64_t b) { return owner[a] < owner[b]; });
  Gradients gradients;
  gradients.tasks = tasks;
  gradients.groups = groups;
  gradients.table.resize(P * tasks);  // not resized again: segments point into it
  for (const int64_t p : order) {
    require(owner[p] < groups, "group_of must be less than the number of groups");
    if (owner[p] < 0) continue;
    Segment segment{owner[p], 0, Dtype::kFloat32, &gradients.table[p * tasks], nullptr};
    const Tensor* like = nullptr;
    for (int64_t t = 0; t < tasks; ++t) {
      const Tensor& tensor = list[t * P + p];
      const int64_t size = tensor.numel();
      if (size == 0) continue;  // missing
      require(tensor.on_cpu() && tensor.contiguous(), "every gradient must be a contiguous CPU tensor");
      if (like) {
        require(size == segment.size && tensor.dtype() == like->dtype(), "the gradients of a parameter must be alike");
      } else {
        like = &tensor;
        segment.size = size;
        segment.dtype = dtype_of(tensor, "a gradient");
      }
      gradients.table[p * tasks + t] = tensor.raw();
    }
    if (out && like) {
      const Tensor& to = (*out)[p];
      require(to.on_cpu() && to.contiguous() && to.numel() == segment.size && to.dtype() == like->dtype(),
              "every tensor of out must be like the gradients of its parameter");
      segment.out = to.raw();
    }
    gradients.segments.push_back(segment);
  }
  index_groups(gradients);
  return gradients;
}

double accuracy(const Gradients& gradients) {
  for (const Segment& segment : gradients.segments)
    if (segment.size > 0 && segment.dtype != Dtype::kFloat64) return 0x1p-23;
  return 0x1p-52;
}

}  // namespace gradsim::cpu
