// Small kernels, most of them wrong, to check the emulator itself (test_emulator.py).
#include <functional>
#include <map>

#include "cuda/device.cuh"

namespace {

constexpr unsigned kAll = 0xffffffffu;

// The sum of 0..127 over the block; `barrier` false: a bug that only some order of threads shows.
__global__ void sum_of_block(bool barrier, float* out) {
  __shared__ float sums[4];
  float sum = float(threadIdx.x);
  for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(kAll, sum, by);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  if (barrier) __syncthreads();
  if (threadIdx.x % 64 == 33) out[threadIdx.x / 64] = sums[0] + sums[1] + sums[2] + sums[3];
}

__global__ void barriers_at_two_places(float* out) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  out[0] = 1;
}

__global__ void half_a_warp_waits(float* out) {
  if (threadIdx.x % 32 < 16) __syncwarp();
  out[0] = 1;
  if (threadIdx.x % 32 >= 16) __syncthreads();
}

__global__ void shuffles_at_two_places(float* out) {
  float x;
  if (threadIdx.x % 2) x = __shfl_xor_sync(kAll, 1.0f, 1);
  else x = __shfl_xor_sync(kAll, 2.0f, 1);
  out[threadIdx.x] = x;
}

__global__ void shuffle_from_outside_the_mask(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}

__global__ void lane_outside_its_mask(float* out) { out[threadIdx.x] = float(__any_sync(1u, 1)); }

__global__ void flag_that_nobody_raises(float* out) {
  const auto* flag = reinterpret_cast<const unsigned*>(out);
  if (threadIdx.x == 0)
    while (emulated_load_acquire(flag) == 0) __nanosleep(100);
  __syncthreads();
}

// Block 0 waits for the others; what it finds is what they wrote.
__global__ void flags_between_blocks(unsigned* flags, float* out) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x > 0) {
    out[blockIdx.x] = float(blockIdx.x);
    __threadfence();
    emulated_store_release(flags + blockIdx.x, 1u);
    return;
  }
  float sum = 0;
  for (unsigned b = 1; b < gridDim.x; ++b) {
    while (emulated_load_acquire(flags + b) == 0) __nanosleep(100);
    sum += out[b];
  }
  out[0] = sum;
}

__global__ void shared_memory_nobody_wrote(float* out) {
  __shared__ float fixed[32];
  GRADSIM_DYNAMIC_SHARED(float, dynamic);
  out[threadIdx.x] = fixed[threadIdx.x];
  out[32 + threadIdx.x] = dynamic[threadIdx.x];
  __syncwarp();
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1;  // for the next block on this OS thread
}

__global__ void behind_shared_memory(float* out) {
  GRADSIM_DYNAMIC_SHARED(float, dynamic);
  dynamic[32 + threadIdx.x] = out[threadIdx.x];
}

__global__ void behind_global_memory(float* out) { out[1024 + threadIdx.x] = 1; }

__global__ void misaligned_vector(float* out) { *reinterpret_cast<float4*>(out + 1) = make_float4(1, 2, 3, 4); }

__global__ void misaligned_load(float* out) { out[0] = __ldg(reinterpret_cast<const float2*>(out + 1)).x; }

__global__ void count(unsigned* counter, float* out) {
  if (threadIdx.x == 0 && atomicAdd(counter, 1u) == gridDim.x - 1) out[0] += 1;
}

// Every kind of shuffle and vote, sections of 8 lanes.
__global__ void shuffles(float* out) {
  const unsigned lane = threadIdx.x;
  out[lane] = __shfl_sync(kAll, float(lane), 3, 8);
  out[32 + lane] = __shfl_xor_sync(kAll, float(lane), 5, 8);
  out[64 + lane] = __shfl_down_sync(kAll, float(lane), 3u, 8);
  out[96 + lane] = float(__shfl_up_sync(kAll, double(lane), 3u, 8));
  out[128 + lane] = float(__ballot_sync(kAll, lane % 3 == 0) >> lane & 1);
  out[160 + lane] = float(__any_sync(kAll, lane == 7) + 2 * __all_sync(kAll, lane < 32) + 4 * __all_sync(kAll, lane));
  out[192 + lane] = float(__syncthreads_count(lane < 5));
}

__global__ void multiply(bool half, const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  float sums[4];
  uint32_t left[4], right[2];
  for (int r = 0; r < 4; ++r) sums[r] = d[4 * lane + r], left[r] = a[4 * lane + r];
  for (int r = 0; r < 2; ++r) right[r] = b[2 * lane + r];
  if (half) emulated_mma_f16(sums, left, right);
  else emulated_mma_bf16(sums, left, right);
  for (int r = 0; r < 4; ++r) d[4 * lane + r] = sums[r];
}

__global__ void multiply64(const double* a, const double* b, double* d) {
  const unsigned lane = threadIdx.x;
  double sums[2] = {d[2 * lane], d[2 * lane + 1]};
  emulated_mma_f64(sums, a[lane], b[lane]);
  d[2 * lane] = sums[0], d[2 * lane + 1] = sums[1];
}

using Check = std::function<void(float*)>;

#define CHECK(name, blocks, threads, shared_bytes) \
  {#name, [](float* out) { GRADSIM_LAUNCH(name, blocks, threads, shared_bytes, nullptr, out); }}

const std::map<std::string, Check>& checks() {
  static const std::map<std::string, Check> all = {
      {"sum_of_block", [](float* out) { GRADSIM_LAUNCH(sum_of_block, 3, 128, 0, nullptr, true, out); }},
      {"sum_without_barrier", [](float* out) { GRADSIM_LAUNCH(sum_of_block, 1, 128, 0, nullptr, false, out); }},
      {"flags_between_blocks",
       [](float* out) {
         unsigned flags[8] = {};
         GRADSIM_LAUNCH(flags_between_blocks, 8, 32, 0, nullptr, static_cast<unsigned*>(flags), out);
       }},
      {"count",
       [](float* out) {
         unsigned counter = 0;
         GRADSIM_LAUNCH(count, 50, 64, 0, nullptr, &counter, out);
       }},
      CHECK(barriers_at_two_places, 1, 64, 0),
      CHECK(half_a_warp_waits, 1, 64, 0),
      CHECK(shuffles_at_two_places, 1, 32, 0),
      CHECK(shuffle_from_outside_the_mask, 1, 32, 0),
      CHECK(lane_outside_its_mask, 1, 32, 0),
      CHECK(flag_that_nobody_raises, 4, 64, 0),
      CHECK(shared_memory_nobody_wrote, 7, 32, 128),
      CHECK(behind_shared_memory, 1, 32, 128),
      CHECK(behind_global_memory, 1, 32, 0),
      CHECK(misaligned_vector, 1, 1, 0),
      CHECK(misaligned_load, 1, 1, 0),
      CHECK(shuffles, 1, 32, 0),
      {"no_blocks", [](float* out) { GRADSIM_LAUNCH(shuffles, 0, 32, 0, nullptr, out); }},
      {"block_too_large", [](float* out) { GRADSIM_LAUNCH(shuffles, 1, 1056, 0, nullptr, out); }},
      {"shared_memory_not_asked_for", [](float* out) { GRADSIM_LAUNCH(shuffles, 1, 32, 50000, nullptr, out); }},
  };
  return all;
}

std::string message;

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Runs one kernel on `out`, 1024 floats; null, or what went wrong.
const char* check(const char* name, float* out) {
  try {
    checks().at(name)(out);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

// One mma: d [16, 8] += a [16, 16] b [16, 8] in bfloat16 or float16, each lane's registers behind each other.
void multiply_fragments(bool half, const uint32_t* a, const uint32_t* b, float* d) {
  GRADSIM_LAUNCH(multiply, 1, 32, 0, nullptr, half, a, b, d);
}

// The same in float64: d [8, 8] += a [8, 4] b [4, 8].
void multiply_fragments64(const double* a, const double* b, double* d) {
  GRADSIM_LAUNCH(multiply64, 1, 32, 0, nullptr, a, b, d);
}

}  // extern "C"
#pragma GCC visibility pop
