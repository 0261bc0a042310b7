// The CPU kernels. Results do not depend on the number of threads: the columns of a group are cut at fixed places,
// and partial sums are added in a fixed order.
#pragma once

#include <cstdint>

#include "gradsim/gradients.h"

namespace gradsim::cpu {

// M [groups, tasks, tasks], symmetric to the bit.
void gramian(const Gradients& gradients, double* M);

// C [groups, a.tasks, b.tasks]; a and b have the same segments.
void cross_gramian(const Gradients& a, const Gradients& b, double* C);

// Segment::out[n] = sum_t weights[group, t] rows[t][n]; weights [groups, tasks]. out may be one of the rows.
void combine(const Gradients& gradients, const double* weights);

struct Surgery {
  double beta;            // decay of the targets
  double max_target;      // a target is at most this when it is compared and aimed at
  double eps;             // relative accuracy of M
  const bool* vaccinate;  // [tasks]; null: all
};

// One group: weights [tasks] from M [tasks, tasks]; updates target [tasks, tasks]; writes corrections [tasks] unless
// null. order [tasks, tasks - 1] must have been checked. scratch: tasks * 3 doubles.
void gradvac_weights(const double* M, int64_t tasks, const int64_t* order, const Surgery& surgery, double* target,
                     double* weights, int64_t* corrections, double* scratch);

// The same for all groups, in parallel.
void gradvac_weights(const double* M, int64_t groups, int64_t tasks, const int64_t* order, const Surgery& surgery,
                     double* target, double* weights, int64_t* corrections);

// Gramian, weights (times scale) and combine; a group that fits the cache is finished while its rows are hot.
void gradvac(const Gradients& gradients, const int64_t* order, const Surgery& surgery, double scale, double* target,
             double* weights, int64_t* corrections, double* M);

// order [groups, tasks, tasks - 1]: row (k, i) lists the tasks j != i by increasing Philox key
// (gradsim_kernels/philox.py).
void random_order(int64_t groups, int64_t tasks, uint64_t seed, uint64_t step, int64_t* order);

// Whether every row (k, i) of order holds each j != i once.
bool order_is_valid(const int64_t* order, int64_t groups, int64_t tasks);

}  // namespace gradsim::cpu
