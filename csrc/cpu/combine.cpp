// The weighted sum of the task gradients, block by block.
#include "cpu/group.h"
#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim::cpu {

void combine(const Gradients& gradients, const double* weights) {
  std::vector<GroupSums> groups;
  std::vector<Block> blocks;
  groups.reserve(gradients.groups);
  for (int64_t k = 0; k < gradients.groups; ++k) {
    groups.emplace_back(gradients, k);
    for (const Block& block : groups[k].blocks) blocks.push_back(block);
  }
  for_each_item(
      int64_t(blocks.size()), [] { return Scratch(); },
      [&](int64_t n, Scratch& scratch) {
        groups[blocks[n].group].combine(blocks[n], weights + blocks[n].group * gradients.tasks, scratch);
      });
}

}  // namespace gradsim::cpu
