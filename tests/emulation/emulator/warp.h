// Warp operations. Each lane brings an operand; the last lane of the mask computes the results of all.
#pragma once

#include <type_traits>

#include "emulator/block.h"

namespace emulator {

// A warp operation: `run(operands)` with one pointer per lane of the mask, null for the others.
using Run = void (*)(void* (&operands)[kLanes]);

struct WarpOperation {
  Run run;
  void* operand;
};

// Does the operation of a mask whose lanes have all come (those at their end need not), and lets them go on.
inline void operate(Block& block, unsigned warp, unsigned mask) {
  Thread* const lanes = &block.threads[warp * kLanes];
  const unsigned present = mask & block.at_warp[warp];
  const Thread& first = lanes[__builtin_ctz(present)];
  void* operands[kLanes] = {};
  for (unsigned rest = present; rest; rest &= rest - 1) {
    Thread& lane = lanes[__builtin_ctz(rest)];
    if (lane.mask != mask || !(lane.site == first.site) || lane.operation != first.operation)
      fail("lanes of a warp are at different operations or masks: " + block.where());
    operands[__builtin_ctz(rest)] = static_cast<WarpOperation*>(lane.operand)->operand;
  }
  static_cast<WarpOperation*>(first.operand)->run(operands);
  for (unsigned rest = present; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].state = State::kReady;
  block.at_warp[warp] &= ~present;
}

// A lane has come to its end: nobody has to wait for it.
inline void release_warp(Block& block, unsigned warp) {
  for (unsigned rest = block.at_warp[warp]; rest; rest &= rest - 1) {
    const unsigned lane = __builtin_ctz(rest), mask = block.threads[warp * kLanes + lane].mask;
    if ((mask & ~block.at_warp[warp] & ~block.done[warp]) == 0) return operate(block, warp, mask);
  }
}

// `kind`: what must be the same for all lanes besides the place.
inline void together(unsigned mask, int kind, Run run, void* operand, Site site) {
  Thread& me = *current;
  Block& block = *me.block;
  const unsigned warp = me.linear / kLanes, bit = 1u << me.linear % kLanes;
  if (!(mask & bit)) fail("a lane is not in the mask of its own warp operation at " + site.name());
  WarpOperation mine{run, operand};
  me.state = State::kAtWarp, me.mask = mask, me.operation = kind, me.operand = &mine, me.site = site;
  block.at_warp[warp] |= bit;
  if (mask & ~block.at_warp[warp] & ~block.done[warp]) stop(State::kAtWarp, site);
  else operate(block, warp, mask);
}

struct Shuffle {
  uint64_t value, result;
  unsigned from;
};

inline void run_shuffle(void* (&operands)[kLanes]) {
  for (void* operand : operands) {
    if (!operand) continue;
    auto* mine = static_cast<Shuffle*>(operand);
    if (!operands[mine->from]) fail("a shuffle reads a lane that takes no part: " + current->site.name());
    mine->result = static_cast<Shuffle*>(operands[mine->from])->value;
  }
}

template <class T>
T shuffle(unsigned mask, T value, unsigned from, int kind, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4 or 8 bytes");
  Shuffle mine{0, 0, from};
  std::memcpy(&mine.value, &value, sizeof(T));
  together(mask, kind, run_shuffle, &mine, site);
  std::memcpy(&value, &mine.result, sizeof(T));
  return value;
}

struct Vote {
  bool predicate;
  unsigned result;
};

inline void run_vote(void* (&operands)[kLanes]) {
  unsigned votes = 0;
  for (unsigned i = 0; i < kLanes; ++i)
    if (operands[i] && static_cast<Vote*>(operands[i])->predicate) votes |= 1u << i;
  for (void* operand : operands)
    if (operand) static_cast<Vote*>(operand)->result = votes;
}

inline unsigned vote(unsigned mask, bool predicate, Site site) {
  Vote mine{predicate, 0};
  together(mask, 10, run_vote, &mine, site);
  return mine.result;
}

inline unsigned lane() { return current->linear % kLanes; }

}  // namespace emulator

inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_SITE) { emulator::vote(mask, false, EMULATED_HERE); }
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return emulator::vote(mask, predicate != 0, EMULATED_HERE);
}
inline int __any_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return emulator::vote(mask, predicate != 0, EMULATED_HERE) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return emulator::vote(mask, predicate == 0, EMULATED_HERE) == 0;
}

// Sections of `width` lanes; a lane outside its section reads itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, EMULATED_SITE) {
  const unsigned section = emulator::lane() & ~unsigned(width - 1);
  return emulator::shuffle(mask, value, section | (unsigned(from) & unsigned(width - 1)), 20, EMULATED_HERE);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATED_SITE) {
  const unsigned last = emulator::lane() | unsigned(width - 1), from = (emulator::lane() ^ unsigned(bits)) % 32;
  return emulator::shuffle(mask, value, from <= last ? from : emulator::lane(), 21, EMULATED_HERE);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATED_SITE) {
  const unsigned last = emulator::lane() | unsigned(width - 1), from = emulator::lane() + by;
  return emulator::shuffle(mask, value, from <= last ? from : emulator::lane(), 22, EMULATED_HERE);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATED_SITE) {
  const unsigned first = emulator::lane() & ~unsigned(width - 1);
  return emulator::shuffle(mask, value, emulator::lane() >= first + by ? emulator::lane() - by : emulator::lane(), 23,
                           EMULATED_HERE);
}
