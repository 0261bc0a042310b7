// The exact task grouping (GradSim, TAG): a dynamic programme over sets of tasks, see docs on python/gradsim/grouping.
// A set is a bit mask: bit b stands for task b of the matrix. Every function fills a range of a table that is indexed
// by sets, so that a caller can stop between two ranges; what it writes does not depend on the number of threads.
#pragma once

#include <cstdint>

namespace gradsim::grouping {

constexpr int64_t kMostTasks = 30;

// What one group is to be worth.
struct Rules {
  bool overlap;        // tasks that the group does not serve may help to train it
  bool alone_allowed;  // a task may be trained alone, and then scores its diagonal entry
};

// worth[set] for set in [first, last): the sum of the scores of the members of the set when one group serves them;
// minus infinity for the empty set and for one that no group may serve. similarity: row major [tasks, tasks], entry
// [i, j] is what j does for i.
void served_scores(const double* similarity, int64_t tasks, Rules rules, int64_t first, int64_t last, double* worth);

// result[A] for A in [first, last): the greatest previous[A without P] + worth[P] over the subsets P of A that hold
// A's highest bit. previous[0] is the value of no task at all. Reads previous and worth up to A only.
void one_more_group(const double* previous, const double* worth, int64_t first, int64_t last, double* result);

}  // namespace gradsim::grouping
