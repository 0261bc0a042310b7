// The worth of every set of tasks. Sums are added in the order of python/gradsim/grouping/subsets.py, so that both
// give the same bits and hence the same choice among equally good groupings.
#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "gradsim/grouping.h"
#include "gradsim/parallel.h"

namespace gradsim::grouping {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// Sets that one worker takes at a time: enough of them that the tables of 12 tasks wake no thread.
constexpr int64_t kTogether = 4096;

struct Members {
  std::array<double, kMostTasks> gain;  // what adding task j gives the members in all; for every j
  double inside;                        // what the members give each other
  int64_t size;
};

Members members_of(const double* similarity, int64_t tasks, int64_t set) {
  Members m{{}, 0.0, 0};
  for (int64_t i = 0; i < tasks; ++i) {
    if (!(set >> i & 1)) continue;
    const double* row = similarity + i * tasks;
    double given = 0.0;
    for (int64_t j = 0; j < i; ++j)
      if (set >> j & 1) given += row[j];
    m.inside = m.inside + given + m.gain[size_t(i)];
    for (int64_t j = 0; j < tasks; ++j) m.gain[size_t(j)] += row[j];
    ++m.size;
  }
  return m;
}

// The best sum of scores of the members in a group that holds them and at least one task more. They share
// (inside + gain of the added tasks) / (size - 1), so the best tasks to add are those with the greatest gain.
double best_superset(Members& m, int64_t tasks, int64_t set) {
  size_t others = 0;
  for (int64_t j = 0; j < tasks; ++j)
    if (!(set >> j & 1)) m.gain[others++] = m.gain[size_t(j)];
  std::sort(m.gain.begin(), m.gain.begin() + int64_t(others), std::greater<double>());
  double total = m.inside, best = kNever;
  for (size_t extra = 0; extra < others; ++extra) {
    total += m.gain[extra];
    best = std::max(best, total / double(m.size + int64_t(extra)));
  }
  return best;
}

double worth_of(const double* similarity, int64_t tasks, Rules rules, int64_t set) {
  if (set == 0) return kNever;
  Members m = members_of(similarity, tasks, set);
  double worth = kNever;
  if (m.size > 1) worth = m.inside / double(m.size - 1);
  if (m.size == 1 && rules.alone_allowed)
    for (int64_t i = 0; i < tasks; ++i)
      if (set >> i & 1) worth = similarity[i * tasks + i];
  return rules.overlap ? std::max(worth, best_superset(m, tasks, set)) : worth;
}

}  // namespace

void served_scores(const double* similarity, int64_t tasks, Rules rules, int64_t first, int64_t last, double* worth) {
  const int64_t items = (last - first + kTogether - 1) / kTogether;
  for_each_item(
      items, [] { return 0; },
      [&](int64_t item, int) {
        const int64_t from = first + item * kTogether, to = std::min(last, from + kTogether);
        for (int64_t set = from; set < to; ++set) worth[set] = worth_of(similarity, tasks, rules, set);
      });
}

}  // namespace gradsim::grouping
