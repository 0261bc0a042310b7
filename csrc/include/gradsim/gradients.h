// Where task gradients lie, as the kernels see them: pointers and sizes, no tensor.
#pragma once

#include <cstdint>
#include <vector>

namespace gradsim {

enum class Dtype : int32_t { kFloat16, kBFloat16, kFloat32, kFloat64 };

inline int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

// Columns that lie together in memory: a group of the flat buffer, or one parameter.
struct Segment {
  int64_t group;
  int64_t size;  // columns
  Dtype dtype;
  const void* const* rows;  // [tasks]; null where a task has no gradient
  void* out;                // [size] in the gradients' dtype; null where nothing is written
};

// All segments of all groups, sorted by group.
struct Gradients {
  int64_t tasks = 0;
  int64_t groups = 0;
  std::vector<Segment> segments;
  std::vector<int64_t> first;      // [groups + 1]: group k owns segments[first[k]] to segments[first[k + 1] - 1]
  std::vector<const void*> table;  // [segments, tasks]: what Segment::rows points into

  int64_t columns(int64_t group) const {
    int64_t sum = 0;
    for (int64_t s = first[group]; s < first[group + 1]; ++s) sum += segments[s].size;
    return sum;
  }
};

}  // namespace gradsim
