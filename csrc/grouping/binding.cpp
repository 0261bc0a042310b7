// The exact grouping as C functions for ctypes, which lets go of the interpreter while they run.
#include <cstdint>
#include <exception>

#include "gradsim/grouping.h"

namespace {

// 0, or 1 where something was thrown: no exception may leave a C function.
template <class F>
int guarded(F&& f) {
  try {
    f();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int gradsim_grouping_worth(const double* similarity, int64_t tasks, int overlap,
                                                                  int alone_allowed, int64_t first, int64_t last,
                                                                  double* worth) {
  using namespace gradsim::grouping;
  if (tasks < 1 || tasks > kMostTasks || first < 0 || last > int64_t(1) << tasks) return 1;
  return guarded([&] { served_scores(similarity, tasks, {overlap != 0, alone_allowed != 0}, first, last, worth); });
}

__attribute__((visibility("default"))) int gradsim_grouping_level(const double* previous, const double* worth,
                                                                  int64_t first, int64_t last, double* result) {
  if (first < 0) return 1;
  return guarded([&] { gradsim::grouping::one_more_group(previous, worth, first, last, result); });
}

}  // extern "C"
