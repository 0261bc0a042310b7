// The visiting order: Philox4x32-10 (Salmon et al., SC 2011), the same bits as gradsim_kernels/philox.py.
#include <algorithm>
#include <array>
#include <vector>

#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim::cpu {

namespace {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(c[0]) * 0xD2511F53u, p1 = uint64_t(c[2]) * 0xCD9E8D57u;
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

}  // namespace

void random_order(int64_t groups, int64_t tasks, uint64_t seed, uint64_t step, int64_t* order) {
  const int64_t together = std::max<int64_t>(1, 16384 / tasks);  // rows an item: worth waking a thread for
  const int64_t rows = groups * tasks;
  for_each_item((rows + together - 1) / together, [tasks] { return std::vector<uint64_t>(tasks); },
                [&](int64_t item, std::vector<uint64_t>& keys) {
                  for (int64_t row = item * together; row < std::min(rows, (item + 1) * together); ++row) {
                    const int64_t k = row / tasks, i = row % tasks;
                    size_t n = 0;
                    for (int64_t j = 0; j < tasks; j += 4) {
                      const auto words =
                          philox({uint32_t(step), uint32_t(step >> 32), uint32_t(k), uint32_t(i << 16 | j >> 2)},
                                 uint32_t(seed), uint32_t(seed >> 32));
                      for (int64_t l = 0; l < 4 && j + l < tasks; ++l)
                        if (j + l != i) keys[n++] = uint64_t(words[l]) << 16 | uint64_t(j + l);
                    }
                    std::sort(keys.begin(), keys.begin() + int64_t(n));
                    for (size_t s = 0; s < n; ++s) order[row * (tasks - 1) + int64_t(s)] = int64_t(keys[s] & 0xffff);
                  }
                });
}

bool order_is_valid(const int64_t* order, int64_t groups, int64_t tasks) {
  std::vector<int64_t> seen(tasks, -1);  // the last row that named the task
  for (int64_t row = 0; row < groups * tasks; ++row) {
    seen[row % tasks] = row;  // i itself must not be named
    for (int64_t s = 0; s < tasks - 1; ++s) {
      const int64_t j = order[row * (tasks - 1) + s];
      if (j < 0 || j >= tasks || seen[j] == row) return false;
      seen[j] = row;
    }
  }
  return true;
}

}  // namespace gradsim::cpu
