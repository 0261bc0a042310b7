// Gramians: partial sums per block in parallel, then added up in the order of the blocks.
#include "cpu/group.h"
#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim::cpu {

namespace {

// Blocks that are worth a visit together: many small groups, or one block of a large one.
std::vector<int64_t> items_of(const std::vector<Block>& blocks, int64_t columns) {
  std::vector<int64_t> first{0};
  int64_t sum = 0;
  for (size_t b = 0; b < blocks.size(); ++b) {
    sum += blocks[b].end - blocks[b].begin;
    if (sum >= columns || b + 1 == blocks.size()) {
      first.push_back(int64_t(b) + 1);
      sum = 0;
    }
  }
  return first;
}

}  // namespace

void cross_gramian(const Gradients& a, const Gradients& b, double* C) {
  const int64_t Ta = a.tasks, Tb = b.tasks, columns = block_columns(Ta, Tb);
  std::vector<Block> blocks;
  for (int64_t k = 0; k < a.groups; ++k)
    for (const Block& block : blocks_of(a, k, columns)) blocks.push_back(block);
  std::vector<int64_t> all_a(Ta), all_b(Tb);
  for (int64_t t = 0; t < Ta; ++t) all_a[t] = t;
  for (int64_t t = 0; t < Tb; ++t) all_b[t] = t;
  std::vector<double> partial(blocks.size() * Ta * Tb, 0.0);
  const std::vector<int64_t> first = items_of(blocks, columns);
  for_each_item(
      int64_t(first.size()) - 1, [] { return Scratch(); },
      [&](int64_t item, Scratch& scratch) {
        std::vector<const void*> rows_a(Ta), rows_b(Tb);
        for (int64_t n = first[item]; n < first[item + 1]; ++n) {
          // The two tables have the same segments; only their rows differ.
          for_each_piece(a, blocks[n], [&](const Segment& segment, int64_t begin, int64_t count) {
            const Segment& other = b.segments[&segment - a.segments.data()];
            rows_at(segment, all_a, begin, rows_a.data());
            rows_at(other, all_b, begin, rows_b.data());
            strips().cross(segment.dtype, rows_a.data(), Ta, rows_b.data(), Tb, count, &partial[n * Ta * Tb],
                           scratch.data());
          });
        }
      });
  std::fill_n(C, a.groups * Ta * Tb, 0.0);
  for (size_t n = 0; n < blocks.size(); ++n)
    for (int64_t p = 0; p < Ta * Tb; ++p) C[blocks[n].group * Ta * Tb + p] += partial[n * Ta * Tb + p];
}

void gramian(const Gradients& gradients, double* M) {
  const int64_t T = gradients.tasks;
  std::vector<GroupSums> groups;
  std::vector<Block> blocks;
  std::vector<int64_t> within;  // the place of a block in its group
  groups.reserve(gradients.groups);
  for (int64_t k = 0; k < gradients.groups; ++k) {
    groups.emplace_back(gradients, k);
    groups[k].expect_sums();
    for (size_t n = 0; n < groups[k].blocks.size(); ++n) {
      blocks.push_back(groups[k].blocks[n]);
      within.push_back(int64_t(n));
    }
  }
  const std::vector<int64_t> first = items_of(blocks, block_columns(T, T));
  for_each_item(
      int64_t(first.size()) - 1, [] { return Scratch(); },
      [&](int64_t item, Scratch& scratch) {
        for (int64_t n = first[item]; n < first[item + 1]; ++n) groups[blocks[n].group].add(within[n], scratch);
      });
  for (int64_t k = 0; k < gradients.groups; ++k) groups[k].write(M + k * T * T);
}

}  // namespace gradsim::cpu
