// How the columns of a group are cut: the same way for any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "cpu/strips.h"
#include "gradsim/gradients.h"

namespace gradsim::cpu {

struct Block {  // columns [begin, end) of a group, counted over its segments
  int64_t group, begin, end;
};

// Aligned memory for one worker.
class Scratch {
 public:
  explicit Scratch(int64_t bytes = scratch_bytes())
      : data_(static_cast<char*>(std::aligned_alloc(64, size_t(bytes + 63) / 64 * 64))) {
    if (!data_) throw std::bad_alloc();
  }
  void* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> data_;
};

// Columns a block: enough for its partial sums (tasks_a x tasks_b) to be a small share of what it reads.
inline int64_t block_columns(int64_t tasks_a, int64_t tasks_b) {
  return std::max<int64_t>(16384, (32 * tasks_a * tasks_b / (tasks_a + tasks_b) + 4095) / 4096 * 4096);
}

inline std::vector<Block> blocks_of(const Gradients& gradients, int64_t group, int64_t columns_a_block) {
  std::vector<Block> blocks;
  const int64_t columns = gradients.columns(group);
  for (int64_t begin = 0; begin < columns; begin += columns_a_block)
    blocks.push_back({group, begin, std::min(columns, begin + columns_a_block)});
  return blocks;
}

// f(segment, first, columns) for each piece of a block that lies in one segment.
template <class F>
void for_each_piece(const Gradients& gradients, const Block& block, F&& f) {
  int64_t at = 0;
  for (int64_t s = gradients.first[block.group]; s < gradients.first[block.group + 1] && at < block.end; ++s) {
    const Segment& segment = gradients.segments[s];
    const int64_t begin = std::max(block.begin - at, int64_t{0}), end = std::min(block.end - at, segment.size);
    if (begin < end) f(segment, begin, end - begin);
    at += segment.size;
  }
}

// The tasks that have a gradient anywhere in a group.
inline std::vector<int64_t> present_tasks(const Gradients& gradients, int64_t group) {
  std::vector<int64_t> present;
  for (int64_t t = 0; t < gradients.tasks; ++t)
    for (int64_t s = gradients.first[group]; s < gradients.first[group + 1]; ++s)
      if (gradients.segments[s].rows[t]) {
        present.push_back(t);
        break;
      }
  return present;
}

// The rows of some tasks from column `first` of a segment on.
inline void rows_at(const Segment& segment, const std::vector<int64_t>& tasks, int64_t first, const void** rows) {
  const int64_t bytes = first * bytes_of(segment.dtype);
  for (size_t i = 0; i < tasks.size(); ++i) {
    const char* row = static_cast<const char*>(segment.rows[tasks[i]]);
    rows[i] = row ? row + bytes : nullptr;
  }
}

}  // namespace gradsim::cpu
