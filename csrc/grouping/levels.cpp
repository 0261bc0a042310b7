// One level of the dynamic programme: the best way to split every set into k groups, from that for k - 1.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "gradsim/grouping.h"
#include "gradsim/parallel.h"

namespace gradsim::grouping {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// Sets that differ in the lowest bits only are done together: two rows of 8 numbers, once read, serve 27 pairs.
constexpr int64_t kLow = 8;

// Blocks that one worker takes at a time; below so many sets a thread costs more to wake than it saves.
constexpr int64_t kTogether = 8;
constexpr int64_t kFewSets = 4096;

double best_split(const double* previous, const double* worth, int64_t set) {
  int64_t top = 1;
  while (top <= set / 2) top *= 2;
  const int64_t others = set ^ top;
  double best = kNever;
  for (int64_t left = others;; left = (left - 1) & others) {  // what is left of the set when P is taken out
    best = std::max(best, previous[left] + worth[set ^ left]);
    if (left == 0) return best;
  }
}

using Row = std::array<double, kLow>;

// best[low] for a P whose low bits are `part` and all low bits that it leaves.
template <size_t part, size_t left>
inline void try_pair(const double* previous, const double* worth, Row& best) {
  if constexpr ((part & left) == 0) best[part | left] = std::max(best[part | left], previous[left] + worth[part]);
}

template <size_t part, size_t... left>
inline void try_parts(const double* previous, const double* worth, Row& best, std::index_sequence<left...>) {
  (try_pair<part, left>(previous, worth, best), ...);
}

template <size_t... part>
inline void try_all(const double* previous, const double* worth, Row& best, std::index_sequence<part...> low) {
  (try_parts<part>(previous, worth, best, low), ...);
}

// The sets from block * kLow on; block > 0, so that the highest bit of all of them is the block's.
void best_splits(const double* previous, const double* worth, int64_t block, double* result) {
  int64_t top = 1;
  while (top <= block / 2) top *= 2;
  const int64_t others = block ^ top;
  Row best;
  best.fill(kNever);
  for (int64_t left = others;; left = (left - 1) & others) {
    try_all(previous + left * kLow, worth + (block ^ left) * kLow, best, std::make_index_sequence<kLow>());
    if (left == 0) break;
  }
  std::copy(best.begin(), best.end(), result);
}

}  // namespace

void one_more_group(const double* previous, const double* worth, int64_t first, int64_t last, double* result) {
  const int64_t from = first / kLow, to = (last + kLow - 1) / kLow;
  const int64_t together = last <= kFewSets ? to : kTogether;
  for_each_item((to - from + together - 1) / together, [] { return 0; },
                [&](int64_t item, int) {
                  const int64_t begin = from + item * together, end = std::min(to, begin + together);
                  for (int64_t block = begin; block < end; ++block) {
                    const int64_t low = block * kLow;
                    if (block > 0 && first <= low && low + kLow <= last) {
                      best_splits(previous, worth, block, result + low);
                      continue;
                    }
                    for (int64_t set = std::max(first, low); set < std::min(last, low + kLow); ++set)
                      result[set] = set == 0 ? kNever : best_split(previous, worth, set);
                  }
                });
}

}  // namespace gradsim::grouping
