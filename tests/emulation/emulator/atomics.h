// Integer atomics, and what orders memory between blocks. There are none for floats: results would depend on the order.
#pragma once

#include "emulator/warp.h"

namespace emulator {

// Under a random order other threads and blocks get to run around an atomic.
inline void jitter(Site site) {
  if (current->block->launch->order.kind != Order::kRandom) return;
  Random& random = current->block->random;
  if (random.below(8) == 0) std::this_thread::sleep_for(std::chrono::microseconds(random.below(100)));
  if (random.below(4) == 0) stop(State::kReady, site);
}

template <class T, class F>
T atomically(T* at, F change, Site site) {
  jitter(site);
  T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
  while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
  jitter(site);
  return old;
}

}  // namespace emulator

// One overload per type, as in CUDA, so that arguments convert alike.
#define EMULATED_ATOMICS(T)                                                                               \
  inline T atomicAdd(T* at, T value, EMULATED_SITE) {                                                     \
    return emulator::atomically(at, [=](T old) { return old + value; }, EMULATED_HERE);                   \
  }                                                                                                       \
  inline T atomicExch(T* at, T value, EMULATED_SITE) {                                                    \
    return emulator::atomically(at, [=](T) { return value; }, EMULATED_HERE);                             \
  }                                                                                                       \
  inline T atomicCAS(T* at, T expected, T value, EMULATED_SITE) {                                         \
    return emulator::atomically(at, [=](T old) { return old == expected ? value : old; }, EMULATED_HERE); \
  }                                                                                                       \
  inline T atomicMax(T* at, T value, EMULATED_SITE) {                                                     \
    return emulator::atomically(at, [=](T old) { return old > value ? old : value; }, EMULATED_HERE);     \
  }                                                                                                       \
  inline T atomicOr(T* at, T value, EMULATED_SITE) {                                                      \
    return emulator::atomically(at, [=](T old) { return old | value; }, EMULATED_HERE);                   \
  }
EMULATED_ATOMICS(int)
EMULATED_ATOMICS(unsigned)
EMULATED_ATOMICS(unsigned long long)
#undef EMULATED_ATOMICS

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned, EMULATED_SITE) { emulator::yield(EMULATED_HERE); }

// ld.acquire.gpu, st.release.gpu; a thread that looks at memory again and again lets others run.
template <class T>
T emulated_load_acquire(const T* at, EMULATED_SITE) {
  emulator::yield(EMULATED_HERE);
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
template <class T>
void emulated_store_release(T* at, T value, EMULATED_SITE) {
  emulator::jitter(EMULATED_HERE);
  __atomic_store_n(at, value, __ATOMIC_RELEASE);
}
