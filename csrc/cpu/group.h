// One group of one call: its blocks, their partial sums, and what is made of them.
#pragma once

#include "cpu/blocks.h"

namespace gradsim::cpu {

struct GroupSums {
  const Gradients& gradients;
  int64_t group;
  std::vector<int64_t> tasks;  // those that have a gradient here: the others cost nothing
  std::vector<Block> blocks;
  std::vector<double> partial;  // [blocks, tasks, tasks], upper triangles; empty until expect_sums

  GroupSums(const Gradients& gradients, int64_t group)
      : gradients(gradients), group(group), tasks(present_tasks(gradients, group)) {
    if (!tasks.empty()) blocks = blocks_of(gradients, group, block_columns(gradients.tasks, gradients.tasks));
  }

  void expect_sums() { partial.assign(blocks.size() * tasks.size() * tasks.size(), 0.0); }

  int64_t bytes() const {
    int64_t sum = 0;
    for (int64_t s = gradients.first[group]; s < gradients.first[group + 1]; ++s)
      sum += gradients.segments[s].size * bytes_of(gradients.segments[s].dtype);
    return sum * int64_t(tasks.size());
  }

  // The sums of one block.
  void add(int64_t block, Scratch& scratch) {
    const int64_t T = int64_t(tasks.size());
    std::vector<const void*> rows(T);
    for_each_piece(gradients, blocks[block], [&](const Segment& segment, int64_t begin, int64_t columns) {
      rows_at(segment, tasks, begin, rows.data());
      strips().gramian(segment.dtype, rows.data(), T, columns, &partial[block * T * T], scratch.data());
    });
  }

  // The Gramian [gradients.tasks, gradients.tasks], once every block has been added; the blocks in their order.
  void write(double* M) const {
    const int64_t T = gradients.tasks, present = int64_t(tasks.size());
    std::fill_n(M, T * T, 0.0);
    for (size_t n = 0; n < blocks.size(); ++n)
      for (int64_t i = 0; i < present; ++i)
        for (int64_t j = i; j < present; ++j)
          M[tasks[i] * T + tasks[j]] += partial[(int64_t(n) * present + i) * present + j];
    for (int64_t i = 0; i < T; ++i)
      for (int64_t j = 0; j < i; ++j) M[i * T + j] = M[j * T + i];
  }

  // The weighted sum of the rows over one block, written to Segment::out; weights [gradients.tasks].
  void combine(const Block& block, const double* weights, Scratch& scratch) const {
    const int64_t T = int64_t(tasks.size());
    std::vector<const void*> rows(T);
    std::vector<double> chosen(T);
    for (int64_t i = 0; i < T; ++i) chosen[i] = weights[tasks[i]];
    for_each_piece(gradients, block, [&](const Segment& segment, int64_t begin, int64_t columns) {
      rows_at(segment, tasks, begin, rows.data());
      char* out = static_cast<char*>(segment.out) + begin * bytes_of(segment.dtype);
      if (segment.out) strips().combine(segment.dtype, rows.data(), T, chosen.data(), columns, out, scratch.data());
    });
  }
};

}  // namespace gradsim::cpu
