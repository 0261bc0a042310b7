// A launch, and the order in which it runs what a GPU may run in any order.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>

#include "emulator/language.h"

namespace emulator {

struct Order {
  enum Kind { kForward, kReverse, kRandom } kind = kForward;
  uint64_t seed = 0;

  static Order from_environment() {
    const char* value = std::getenv("GRADSIM_EMULATED_ORDER");
    const std::string name = value ? value : "forward";
    if (name == "forward" || name.empty()) return {kForward, 0};
    if (name == "reverse") return {kReverse, 0};
    if (name.rfind("random:", 0) == 0) return {kRandom, std::strtoull(name.c_str() + 7, nullptr, 10)};
    fail("GRADSIM_EMULATED_ORDER must be forward, reverse or random:SEED, not " + name);
  }
};

struct Random {  // splitmix64
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  unsigned below(unsigned n) { return unsigned((next() >> 32) * n >> 32); }
};

// What all blocks of a launch share.
struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
  std::string name;
  Order order;
  const std::function<void()>* kernel = nullptr;
  std::chrono::steady_clock::time_point deadline;
  std::atomic<bool> failed{false};
  std::atomic<int> busy{0};  // OS threads whose block does something other than wait in a loop

  bool late() const { return std::chrono::steady_clock::now() > deadline; }
};

}  // namespace emulator
