#include "cuda/inputs.h"

#include <utility>

namespace gradsim::gpu {

namespace {

void add_buffer(const Device& device, const Where& where, const Tensor* out, Layout& g) {
  const Tensor& J = where.J;
  require(device.has(J) && J.dim() == 2 && J.size(0) == g.tasks && J.size(1) == g.columns && g.segments == g.groups,
          "J must be [T, N], on the device of its offsets");
  require(g.columns <= 1 || J.stride(1) == 1, "J must have unit stride along N");
  const Dtype dtype = dtype_of(J, "J");
  require(where.dtypes == int64_t(1) << int(dtype), "dtypes must name the dtype of J");
  g.position = dense<int64_t>(device, where.table, "offsets", aoti_torch_dtype_int64(), {g.groups + 1});
  g.base = J.data<const char>();
  g.row_bytes = J.stride(0) * bytes_of(dtype);
  if (out && *out) g.out = dense<char>(device, *out, "out", J.dtype(), {g.columns});
}

// Section after section, in the order of layout.py.
void add_table(const Device& device, const Where& where, Layout& g) {
  const int64_t S = g.segments, G = g.groups, T = g.tasks;
  const int64_t sizes = (S + 1) + 3 * S + (G + 1) + S + S * T;
  const int64_t* section = dense<int64_t>(device, where.table, "table", aoti_torch_dtype_int64(), {sizes});
  const auto next = [&section](int64_t count) { return std::exchange(section, section + count); };
  g.position = next(S + 1);
  g.size = next(S);
  g.group = next(S);
  g.dtype = next(S);
  g.first = next(G + 1);
  g.outs = reinterpret_cast<char* const*>(next(S));
  g.rows = reinterpret_cast<const char* const*>(next(S * T));
}

}  // namespace

Layout layout_of(const Device& device, const Where& where, const Tensor* out) {
  const auto counts = [](int64_t n) { return 0 <= n && n < int64_t(1) << 40; };  // no product of two overflows
  require(counts(where.tasks) && where.tasks > 0 && counts(where.groups) && counts(where.segments),
          "there must be a task, and no number may be negative");
  require(where.columns >= 0 && 0 <= where.dtypes && where.dtypes < 16 && (where.dtypes > 0 || where.segments == 0),
          "columns and dtypes must be those of a layout");
  Layout g;
  g.tasks = where.tasks, g.groups = where.groups, g.segments = where.segments, g.columns = where.columns;
  g.dtypes = uint32_t(where.dtypes);
  if (where.J) add_buffer(device, where, out, g);
  else add_table(device, where, g);
  return g;
}

}  // namespace gradsim::gpu
