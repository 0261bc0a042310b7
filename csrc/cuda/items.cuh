// Which columns a block works on. An item is a run of at most `chunk` positions of one segment. Segment s owns the
// items position[s] / chunk + s up to position[s + 1] / chunk + s, both included: a closed form, so that one launch
// serves all groups with no table of blocks, and the cuts lie at multiples of `chunk` whatever the device.
#pragma once

#include "cuda/device.cuh"
#include "cuda/search.cuh"
#include "gradsim/gpu.h"

namespace gradsim::gpu {

struct Item {
  int64_t segment, group;
  int64_t begin, end;  // columns of the segment; empty: begin >= end
  Dtype dtype;
};

// bytes_of for device code.
GRADSIM_HOST_DEVICE constexpr int64_t bytes_of_element(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

GRADSIM_HOST_DEVICE inline int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// The number of items of a layout, known to the host.
GRADSIM_HOST_DEVICE inline int64_t item_count(const Layout& g, int64_t chunk) { return g.columns / chunk + g.segments; }

// The dtype of a buffer; of a list, one that occurs.
inline Dtype some_dtype(const Layout& g) {
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32})
    if (g.dtypes >> int(dtype) & 1) return dtype;
  return Dtype::kFloat64;
}

__device__ inline int64_t position_of(const Layout& g, int64_t segment) {
  return clamp(load_readonly(g.position + segment), 0, g.columns);
}

// The first item of segment s; of s == segments: the number of items in use.
__device__ inline int64_t first_item(const Layout& g, int64_t chunk, int64_t segment) {
  return position_of(g, segment) / chunk + segment;
}

// The first item of group k; of k == groups: the number of items in use.
__device__ inline int64_t first_item_of_group(const Layout& g, int64_t chunk, int64_t group) {
  return first_item(g, chunk, g.first ? clamp(load_readonly(g.first + group), 0, g.segments) : group);
}

// The item with this index if it belongs to this segment; else an empty one or one that lies elsewhere in the segment.
__device__ inline Item item_of_segment(const Layout& g, int64_t chunk, int64_t index, int64_t segment,
                                       Dtype dtype_of_buffer) {
  const int64_t start = position_of(g, segment), end = position_of(g, segment + 1);
  const int64_t size = g.size ? clamp(load_readonly(g.size + segment), 0, end - start) : end - start;
  const int64_t from = (start / chunk + index - first_item(g, chunk, segment)) * chunk;  // a position
  Item item;
  item.segment = segment;
  item.group = g.group ? clamp(load_readonly(g.group + segment), 0, g.groups - 1) : segment;
  item.begin = clamp(from - start, 0, size);
  item.end = clamp(from + chunk - start, 0, size);
  item.dtype = g.dtype ? Dtype(load_readonly(g.dtype + segment)) : dtype_of_buffer;
  return item;
}

// By all lanes of a warp, alike in all.
__device__ inline Item find_item(const Layout& g, int64_t chunk, int64_t index, Dtype dtype_of_buffer) {
  const int64_t after = count_leading(g.segments, [&](int64_t s) { return first_item(g, chunk, s) <= index; });
  return item_of_segment(g, chunk, index, after > 0 ? after - 1 : 0, dtype_of_buffer);
}

// The first column of task t in a segment; null where the task has no gradient.
__device__ inline const char* row_of(const Layout& g, int64_t segment, int64_t task, int64_t bytes) {
  if (g.rows) return load_readonly(g.rows + segment * g.tasks + task);
  return g.base + task * g.row_bytes + position_of(g, segment) * bytes;
}

__device__ inline char* out_of(const Layout& g, int64_t segment, int64_t bytes) {
  if (g.outs) return load_readonly(g.outs + segment);
  return g.out ? g.out + position_of(g, segment) * bytes : nullptr;
}

}  // namespace gradsim::gpu
