// out[n] = sum_t w_t rows[t][n] over one item by one block. Null rows are skipped; out may be one of the rows: a thread
// has read all rows of its columns before it writes them.
#pragma once

#include "cuda/formats.cuh"
#include "cuda/items.cuh"

namespace gradsim::gpu {

constexpr unsigned kCombineThreads = 256;
constexpr unsigned kCombineBlocks = 3;  // per multiprocessor: 96 KB of loads in flight, and registers for them
constexpr int kInFlight = 8;            // loads of a thread before it waits for the first

// A row that is there, and its weight, rounded once.
template <class Sum>
struct WeightedRow {
  const char* at;  // of the item's first column
  Sum weight;
};

constexpr size_t kWeightedRowBytes = sizeof(WeightedRow<double>);

inline size_t combine_shared_bytes(int64_t tasks) { return size_t(tasks) * kWeightedRowBytes; }

// The rows that are there, in the order of the tasks, in shared memory; their number. Ends with a barrier.
template <class Sum>
__device__ unsigned gather_rows(const Layout& g, const Item& item, int64_t bytes, const double* weights,
                                WeightedRow<Sum>* rows) {
  __shared__ unsigned there[kCombineThreads / kWarp];
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  unsigned count = 0;
  for (int64_t base = 0; base < g.tasks; base += blockDim.x) {
    const int64_t t = base + threadIdx.x;
    const char* at = t < g.tasks ? row_of(g, item.segment, t, bytes) : nullptr;
    const unsigned votes = __ballot_sync(kAllLanes, at != nullptr);
    if (lane == 0) there[warp] = unsigned(__popc(votes));
    __syncthreads();
    unsigned place = count + unsigned(__popc(votes & ((1u << lane) - 1)));
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) {
      if (w < warp) place += there[w];
      count += there[w];
    }
    if (at) rows[place] = {at + item.begin * bytes, Sum(load_from_l2(weights + t))};
    __syncthreads();
  }
  return count;
}

// sum += w_t x_t for all rows; load(at) reads the thread's part of a row, multiply(weight, part) adds it.
template <class Part, class Sum, class Load, class Multiply>
__device__ void sum_rows(const WeightedRow<Sum>* rows, unsigned count, const Load& load, const Multiply& multiply) {
  for (unsigned first = 0; first < count; first += kInFlight) {
    Part part[kInFlight];
#pragma unroll
    for (int n = 0; n < kInFlight; ++n)
      if (first + n < count) part[n] = load(rows[first + n].at);
#pragma unroll
    for (int n = 0; n < kInFlight; ++n)
      if (first + n < count) multiply(rows[first + n].weight, part[n]);
  }
}

// By all threads; `shared`: combine_shared_bytes(tasks), aligned to 16 bytes; weights [tasks] of the item's group. Ends
// with a barrier, so that the shared memory can be used again.
template <class Format>
__device__ void combine_item(const Layout& g, const Item& item, const double* weights, char* shared) {
  using Element = typename Format::Element;
  using Sum = typename Format::Sum;
  constexpr int64_t kBytes = sizeof(Element);
  constexpr int kPerVector = 16 / int(kBytes);
  char* out = out_of(g, item.segment, kBytes);
  if (!out || item.begin >= item.end) return;
  out += item.begin * kBytes;
  auto* const rows = reinterpret_cast<WeightedRow<Sum>*>(shared);
  const unsigned count = gather_rows(g, item, kBytes, weights, rows);
  const auto past_vector = [](const char* at) { return unsigned(reinterpret_cast<uintptr_t>(at) % 16); };
  bool alike = true;
  for (unsigned r = threadIdx.x; r < count; r += blockDim.x)
    alike = alike && past_vector(rows[r].at) == past_vector(out);
  alike = __syncthreads_and(alike);
  // Columns before the first whole vector, vectors, and columns behind the last. Rows that are not aligned alike have
  // no vectors.
  const int64_t columns = item.end - item.begin;
  const int64_t head = alike ? min(columns, int64_t((16 - past_vector(out)) % 16 / kBytes)) : columns;
  const int64_t vectors = (columns - head) / kPerVector, tail = head + vectors * kPerVector;
  for (int64_t v = threadIdx.x; v < vectors; v += blockDim.x) {
    const int64_t offset = head * kBytes + v * 16;
    Sum sum[kPerVector] = {};
    sum_rows<uint4>(
        rows, count, [offset](const char* at) { return __ldcs(reinterpret_cast<const uint4*>(at + offset)); },
        [&sum](Sum weight, const uint4& vector) {
          Sum x[kPerVector];
          Format::unpack(vector, x);
#pragma unroll
          for (int e = 0; e < kPerVector; ++e) sum[e] += weight * x[e];
        });
    __stcs(reinterpret_cast<uint4*>(out + offset), Format::pack(sum));
  }
#pragma unroll 1
  for (int64_t edge = threadIdx.x; edge < columns - (tail - head); edge += blockDim.x) {
    const int64_t n = edge < head ? edge : edge - head + tail;
    Sum sum = 0;
    sum_rows<Element>(
        rows, count, [n](const char* at) { return __ldcs(reinterpret_cast<const Element*>(at) + n); },
        [&sum](Sum weight, Element x) { sum += weight * Format::widen(x); });
    __stcs(reinterpret_cast<Element*>(out) + n, Format::narrow(sum));
  }
  __syncthreads();
}

}  // namespace gradsim::gpu
