// Loads and stores with cache hints, and dynamic shared memory.
#pragma once

#include "emulator/block.h"

namespace emulator {

template <class T>
const T* aligned(const T* at, Site site) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(T) != 0) fail("misaligned access at " + site.name());
  return at;
}

}  // namespace emulator

#define EMULATED_LOAD(name)                       \
  template <class T>                              \
  inline T name(const T* at, EMULATED_SITE) {     \
    return *emulator::aligned(at, EMULATED_HERE); \
  }
#define EMULATED_STORE(name)                        \
  template <class T>                                \
  inline void name(T* at, T value, EMULATED_SITE) { \
    emulator::aligned(at, EMULATED_HERE);           \
    *at = value;                                    \
  }
EMULATED_LOAD(__ldg)
EMULATED_LOAD(__ldca)
EMULATED_LOAD(__ldcg)
EMULATED_LOAD(__ldcs)
EMULATED_LOAD(__ldlu)
EMULATED_LOAD(__ldcv)
EMULATED_STORE(__stwb)
EMULATED_STORE(__stcg)
EMULATED_STORE(__stcs)
EMULATED_STORE(__stwt)
#undef EMULATED_LOAD
#undef EMULATED_STORE

// For loads that the host would do at any address.
template <class T>
void emulated_expect_aligned(const T* at, EMULATED_SITE) {
  emulator::aligned(at, EMULATED_HERE);
}

inline void* emulated_dynamic_shared() { return emulator::current->block->shared; }
