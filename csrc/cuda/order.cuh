// The visiting order of row (k, i): the tasks j != i by increasing Philox key, drawn where it is needed. Philox4x32-10
// (Salmon et al., SC 2011), the same bits as gradsim_kernels/philox.py; a sort by counting, since T is small.
#pragma once

#include "cuda/device.cuh"

namespace gradsim::gpu {

// A row belongs to `seed`, `step`, group and task alone.
struct Draw {
  uint64_t seed, step;
  int64_t group;
};

__device__ inline uint64_t step_of(uint64_t step, const int64_t* step_at) {
  return step_at ? uint64_t(load_readonly(step_at)) : step;
}

// The 32-bit keys of the tasks 4 quarter to 4 quarter + 3 in row i.
__device__ inline uint4 order_keys(const Draw& draw, unsigned i, unsigned quarter) {
  uint4 c = make_uint4(uint32_t(draw.step), uint32_t(draw.step >> 32), uint32_t(draw.group), i << 16 | quarter);
  uint32_t k0 = uint32_t(draw.seed), k1 = uint32_t(draw.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(c.x, 0xD2511F53u), low0 = c.x * 0xD2511F53u;
    const uint32_t high1 = __umulhi(c.z, 0xCD9E8D57u), low1 = c.z * 0xCD9E8D57u;
    c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

__device__ inline uint32_t word_of(const uint4& words, unsigned n) {
  return n == 0 ? words.x : n == 1 ? words.y : n == 2 ? words.z : words.w;
}

// Whether task a comes before task b; ties of the key fall to the smaller task.
__device__ inline bool precedes(uint32_t key_a, unsigned a, uint32_t key_b, unsigned b) {
  return key_a < key_b || (key_a == key_b && a < b);
}

// A team: 8 lanes of a warp, lane l with the tasks l kPer to l kPer + kPer - 1. All lanes of the warp must take part.
constexpr unsigned kTeam = 8;

// Row i by a team, for tasks <= kTeam * kPer: calls store(s, j) for each j.
template <unsigned kPer, class Store>
__device__ void draw_row_by_team(const Draw& draw, unsigned i, unsigned tasks, const Store& store) {
  const unsigned mine = threadIdx.x % kTeam * kPer;
  const uint4 words = order_keys(draw, i, mine / 4);
  uint32_t key[kPer];
  unsigned before[kPer];
#pragma unroll
  for (unsigned p = 0; p < kPer; ++p) {
    key[p] = word_of(words, mine % 4 + p);
    before[p] = 0;
  }
  for (unsigned lane = 0; lane < kTeam; ++lane) {
#pragma unroll
    for (unsigned q = 0; q < kPer; ++q) {
      const uint32_t other_key = __shfl_sync(kAllLanes, key[q], int(lane), kTeam);
      const unsigned other = lane * kPer + q;
      const bool counts = other < tasks && other != i;
#pragma unroll
      for (unsigned p = 0; p < kPer; ++p) before[p] += counts && precedes(other_key, other, key[p], mine + p);
    }
  }
#pragma unroll
  for (unsigned p = 0; p < kPer; ++p)
    if (mine + p < tasks && mine + p != i) store(before[p], mine + p);
}

constexpr unsigned kKeyTile = 1024;  // keys in shared memory at a time

// Row i by a block, for any number of tasks; keys: shared memory. Ends without a barrier.
template <class Store>
__device__ void draw_row_by_block(const Draw& draw, unsigned i, unsigned tasks, uint32_t (&keys)[kKeyTile],
                                  const Store& store) {
  for (unsigned base = 0; base < tasks; base += blockDim.x) {
    const unsigned j = base + threadIdx.x;
    const uint32_t key = word_of(order_keys(draw, i, j / 4), j % 4);
    unsigned before = 0;
    for (unsigned tile = 0; tile < tasks; tile += kKeyTile) {
      const unsigned count = min(kKeyTile, tasks - tile);
      if (base == 0 || tasks > kKeyTile) {
        __syncthreads();
        for (unsigned quarter = threadIdx.x; 4 * quarter < count; quarter += blockDim.x) {
          const uint4 words = order_keys(draw, i, tile / 4 + quarter);
#pragma unroll
          for (unsigned n = 0; n < 4; ++n) keys[4 * quarter + n] = word_of(words, n);
        }
        __syncthreads();
      }
      for (unsigned other = 0; other < count; ++other)
        before += tile + other != i && precedes(keys[other], tile + other, key, j);
    }
    if (j < tasks && j != i) store(before, j);
  }
}

}  // namespace gradsim::gpu
