// The fused step: Gramian, weights and combine of a group while its rows are in the cache.
#include <numeric>

#include "cpu/group.h"
#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim::cpu {

namespace {

// Up to here one thread finishes a group by itself: its rows come back from the last cache for the combine, and no
// thread waits for another. Larger groups are shared by all threads, in two passes.
constexpr int64_t kFusedBytes = 8 << 20;

struct Step {
  const Gradients& gradients;
  const int64_t* order;
  const Surgery& surgery;
  double scale;
  double* target;
  double* weights;
  int64_t* corrections;
  double* M;

  void make_weights(const GroupSums& group) const {
    const int64_t k = group.group, T = gradients.tasks;
    group.write(M + k * T * T);
    std::vector<double> scratch(3 * T);
    gradvac_weights(M + k * T * T, T, order + k * T * (T - 1), surgery, target + k * T * T, weights + k * T,
                    corrections ? corrections + k * T : nullptr, scratch.data());
    for (int64_t t = 0; t < T; ++t) weights[k * T + t] *= scale;
  }

  void alone(GroupSums& group, Scratch& scratch) const {
    group.expect_sums();
    for (size_t n = 0; n < group.blocks.size(); ++n) group.add(int64_t(n), scratch);
    make_weights(group);
    for (size_t n = group.blocks.size(); n-- > 0;)  // the last rows read are the likeliest to be still there
      group.combine(group.blocks[n], weights + group.group * gradients.tasks, scratch);
  }

  void together(GroupSums& group) const {
    const int64_t blocks = int64_t(group.blocks.size());
    const auto make = [] { return Scratch(); };
    group.expect_sums();
    for_each_item(blocks, make, [&](int64_t n, Scratch& scratch) { group.add(n, scratch); });
    make_weights(group);
    for_each_item(blocks, make, [&](int64_t n, Scratch& scratch) {
      group.combine(group.blocks[blocks - 1 - n], weights + group.group * gradients.tasks, scratch);
    });
  }
};

}  // namespace

void gradvac(const Gradients& gradients, const int64_t* order, const Surgery& surgery, double scale, double* target,
             double* weights, int64_t* corrections, double* M) {
  const Step step{gradients, order, surgery, scale, target, weights, corrections, M};
  std::vector<int64_t> bytes(gradients.groups), small;
  for (int64_t k = 0; k < gradients.groups; ++k) {
    GroupSums group(gradients, k);
    bytes[k] = group.bytes();
    if (bytes[k] <= kFusedBytes) small.push_back(k);
    else step.together(group);
  }
  // The largest first, so that the threads end together; tiny ones by the handful.
  std::stable_sort(small.begin(), small.end(), [&](int64_t a, int64_t b) { return bytes[a] > bytes[b]; });
  std::vector<int64_t> first{0};
  int64_t sum = 0;
  for (size_t n = 0; n < small.size(); ++n) {
    sum += bytes[small[n]] + 4096;  // a group costs something even when it is empty
    if (sum >= 1 << 20 || n + 1 == small.size()) {
      first.push_back(int64_t(n) + 1);
      sum = 0;
    }
  }
  for_each_item(
      int64_t(first.size()) - 1, [] { return Scratch(); },
      [&](int64_t item, Scratch& scratch) {
        for (int64_t n = first[item]; n < first[item + 1]; ++n) {
          GroupSums group(gradients, small[n]);
          step.alone(group, scratch);
        }
      });
}

}  // namespace gradsim::cpu
