// Threads, without knowing whose: binding.cpp provides them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

namespace gradsim {

int64_t num_threads();

// Calls work(context) once in each of `workers` threads at once and returns when all have returned.
void run_workers(int64_t workers, void (*work)(void* context), void* context);

// f(item) for every item in [0, items), in any order, by whichever thread is free: what f computes must depend on the
// item alone. make() is called once a worker and its result handed to f as scratch. The first exception is rethrown
// here.
template <class Make, class F>
void for_each_item(int64_t items, Make&& make, F&& f) {
  struct Context {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    int64_t items;
    Make& make;
    F& f;
  } context{{0}, {false}, nullptr, items, make, f};
  auto work = [](void* opaque) {
    Context& shared = *static_cast<Context*>(opaque);
    try {
      auto scratch = shared.make();
      for (int64_t i; (i = shared.next.fetch_add(1)) < shared.items;) shared.f(i, scratch);
    } catch (...) {  // must not leave a parallel region
      if (!shared.failed.exchange(true)) shared.error = std::current_exception();
      shared.next.store(shared.items);
    }
  };
  if (items > 0) run_workers(std::min(items, num_threads()), work, &context);
  if (context.error) std::rethrow_exception(context.error);
}

}  // namespace gradsim
