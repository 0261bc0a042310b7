// The threads of a block and the scheduler that runs them on one OS thread, in the order asked for.
#pragma once

#include <exception>
#include <thread>
#include <vector>

#include "emulator/fiber.h"
#include "emulator/order.h"

namespace emulator {

constexpr unsigned kLanes = 32;

enum class State : uint8_t { kReady, kAtBarrier, kAtWarp, kDone };

struct Block;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  uint3 index{};
  unsigned linear = 0;
  State state = State::kDone;
  bool waits = false;  // it stopped by itself, in a loop that looks at memory
  Site site{"", 0};    // where it stopped
  // What it brought to the barrier or warp operation at which it stopped, and takes from there.
  int operation = 0;
  unsigned mask = 0;
  void* operand = nullptr;
};

inline thread_local Thread* current = nullptr;

struct Block {
  Launch* launch = nullptr;
  uint3 index{};
  std::vector<Thread> threads;
  std::vector<unsigned> at_warp, done;  // of each warp: the lanes in a warp operation, and those at their end
  Fiber scheduler;
  char* shared = nullptr;
  Random random{0};
  std::exception_ptr error;

  unsigned warps() const { return (unsigned(threads.size()) + kLanes - 1) / kLanes; }
  unsigned lanes(unsigned warp) const { return std::min(kLanes, unsigned(threads.size()) - warp * kLanes); }

  void run();  // all threads to their end
  std::string where() const;

 private:
  enum Progress { kNothing, kWaiting, kDid };
  Progress turn(unsigned warp);
  bool release_barrier();
  void wait_for_others(std::chrono::steady_clock::time_point idle_since);
};

// Back to the scheduler; returns when the scheduler continues this thread.
inline void stop(State state, Site site) {
  Thread& me = *current;
  me.state = state;
  me.site = site;
  me.fiber.switch_to(me.block->scheduler, state == State::kDone);
}

// For loops that wait for memory to change.
inline void yield(Site site) {
  current->waits = true;
  stop(State::kReady, site);
}

void release_warp(Block& block, unsigned warp);  // in warp.h

inline void thread_entry() {
  Fiber::arrived(current->fiber, &current->block->scheduler);
  try {
    (*current->block->launch->kernel)();
  } catch (...) {
    current->block->error = std::current_exception();
  }
  stop(State::kDone, Site{"", 0});
  std::abort();
}

// Lets each lane of the warp that can run do so once, again and again until none can or all only wait.
inline Block::Progress Block::turn(unsigned warp) {
  Progress result = kNothing;
  unsigned order[kLanes];
  const unsigned n = lanes(warp);
  for (;;) {
    for (unsigned i = 0; i < n; ++i) order[i] = launch->order.kind == Order::kReverse ? n - 1 - i : i;
    if (launch->order.kind == Order::kRandom)
      for (unsigned i = n; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    Progress sweep = kNothing;
    for (unsigned i = 0; i < n; ++i) {
      Thread& thread = threads[warp * kLanes + order[i]];
      if (thread.state != State::kReady) continue;
      thread.waits = false;
      current = &thread;
      scheduler.switch_to(thread.fiber);
      current = nullptr;
      if (error) std::rethrow_exception(error);
      if (thread.state == State::kDone) done[warp] |= 1u << order[i], release_warp(*this, warp);
      sweep = std::max(sweep, thread.waits ? kWaiting : kDid);
    }
    result = std::max(result, sweep);
    if (sweep != kDid || launch->order.kind == Order::kRandom) return result;
  }
}

inline void Block::run() {
  for (Thread& thread : threads) thread.state = State::kReady;
  at_warp.assign(warps(), 0);
  done.assign(warps(), 0);
  if (const unsigned rest = unsigned(threads.size()) % kLanes) done.back() = ~0u << rest;
  std::vector<unsigned> order(warps());
  for (unsigned w = 0; w < warps(); ++w) order[w] = launch->order.kind == Order::kReverse ? warps() - 1 - w : w;
  bool idle = false;
  std::chrono::steady_clock::time_point idle_since;
  for (unsigned round = 1;; ++round) {
    if (launch->order.kind == Order::kRandom)
      for (unsigned i = warps(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    Progress progress = kNothing;
    for (const unsigned warp : order) {
      progress = std::max(progress, turn(warp));
      if (launch->order.kind == Order::kRandom && random.below(4) == 0) break;  // some warps fall behind
    }
    if (progress == kNothing) {
      bool ready = false, done = true;
      for (const Thread& thread : threads) {
        ready = ready || thread.state == State::kReady;
        done = done && thread.state == State::kDone;
      }
      if (done) return;
      if (!ready && !release_barrier()) fail("deadlock in " + where());
    }
    if (idle && progress == kDid) idle = false, ++launch->busy;
    if (progress == kWaiting) {
      if (!idle) idle = true, --launch->busy, idle_since = std::chrono::steady_clock::now();
      wait_for_others(idle_since);
    }
    if (round % 4096 == 0 && launch->late()) fail("time limit reached in " + where());
    if (launch->failed) fail("stopped, because another block failed");
  }
}

// Nothing in this block goes on before another block does something.
inline void Block::wait_for_others(std::chrono::steady_clock::time_point idle_since) {
  std::this_thread::sleep_for(std::chrono::microseconds(20));
  const bool all_wait = launch->busy == 0 && std::chrono::steady_clock::now() - idle_since > std::chrono::seconds(2);
  if (all_wait) fail("deadlock, all blocks wait for others, in " + where());
  if (launch->late()) fail("time limit reached in " + where());
}

// All threads that are still there have come to __syncthreads: they go on.
inline bool Block::release_barrier() {
  const Thread* first = nullptr;
  for (const Thread& thread : threads) {
    if (thread.state == State::kDone) continue;
    if (thread.state != State::kAtBarrier) return false;
    if (!first) first = &thread;
    if (!(first->site == thread.site)) fail("threads of a block wait at different barriers: " + where());
  }
  int count = 0;
  for (const Thread& thread : threads)
    if (thread.state == State::kAtBarrier) count += *static_cast<int*>(thread.operand) != 0;
  for (Thread& thread : threads)
    if (thread.state == State::kAtBarrier) *static_cast<int*>(thread.operand) = count, thread.state = State::kReady;
  return first != nullptr;
}

inline std::string Block::where() const {
  std::vector<std::pair<std::string, int>> places;
  for (const Thread& thread : threads) {
    std::string place = thread.state == State::kDone        ? "at the end"
                        : thread.state == State::kAtBarrier ? "at the barrier " + thread.site.name()
                        : thread.state == State::kAtWarp    ? "in the warp operation " + thread.site.name()
                        : thread.waits                      ? "waiting in a loop at " + thread.site.name()
                                                            : std::string("ready");
    auto found = std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == place; });
    if (found == places.end()) places.emplace_back(place, 0), found = places.end() - 1;
    ++found->second;
  }
  std::string text = launch->name + ", block (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
                     std::to_string(index.z) + ")";
  for (const auto& place : places) text += "; " + std::to_string(place.second) + " threads " + place.first;
  return text;
}

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::current->block->index)
#define blockDim (emulator::current->block->launch->block)
#define gridDim (emulator::current->block->launch->grid)

namespace emulator {

// Each thread brings a predicate, and learns for how many threads it holds.
inline int barrier(int predicate, Site site) {
  current->operand = &predicate;
  stop(State::kAtBarrier, site);
  return predicate;
}

}  // namespace emulator

inline void __syncthreads(EMULATED_SITE) { emulator::barrier(0, EMULATED_HERE); }
inline int __syncthreads_count(int predicate, EMULATED_SITE) { return emulator::barrier(predicate, EMULATED_HERE); }
inline int __syncthreads_or(int predicate, EMULATED_SITE) { return emulator::barrier(predicate, EMULATED_HERE) != 0; }
inline int __syncthreads_and(int predicate, EMULATED_SITE) { return emulator::barrier(!predicate, EMULATED_HERE) == 0; }
