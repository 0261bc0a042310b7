// The bodies behind strips.h, included once per instruction set inside a namespace of its own.
//
// The including file defines, for each dtype, a struct Op with
//   Elem             the element as it lies in memory
//   Vec, Acc         a vector of elements as they are multiplied, and of sums; kStep columns a Vec
//   kChain           multiply-adds into one register before it is moved out: bounds the drift of a sum
//   Packed           the Op in which rows are kept once they were read (Float32 for what is converted on the way)
//   load, keep_row, fma, sum
// and kOff, the most tasks on the far side of a panel, and kFuse, whether a panel has registers for its triangle
// besides. No std templates here: their instantiations would carry this instruction set into other files.

#include "cpu/panels.inl"

// Columns [begin, end) of `tasks` rows through a plan.
template <class From, class Op, bool Keep>
void sweep(const Plan<From, Op, Keep>& plan, const void* const* rows, int64_t tasks, int64_t begin, int64_t end,
           double* result, int64_t stride, void* scratch) {
  using In = typename From::Elem;
  using Kept = typename Op::Elem;
  typename Op::Acc* vectors = static_cast<typename Op::Acc*>(scratch);
  Kept* copies = reinterpret_cast<Kept*>(static_cast<char*>(scratch) + kVectorBytes);  // [tasks, kStrip]
  alignas(64) static const In zeros[kStrip] = {};                                      // a missing row
  In tail[2 * kTile * Op::kStep];
  Strip strip;
  const auto place = [&](int64_t t, const In* row) {
    strip.from[t] = row;
    strip.kept[t] = Keep ? static_cast<void*>(copies + t * kStrip) : const_cast<In*>(row);
  };
  plan.clear(vectors);
  const int64_t whole = begin + (end - begin) / Op::kStep * Op::kStep;
  constexpr int64_t kColumnsPerFlush = kChainsPerFlush * Op::kChain * Op::kStep;
  int64_t columns = 0;
  for (int64_t c = begin; c < whole; c += kStrip) {
    for (int64_t t = 0; t < tasks; ++t) place(t, rows[t] ? static_cast<const In*>(rows[t]) + c : zeros);
    plan.run(strip, at_most(whole - c, kStrip), vectors);
    if ((columns += kStrip) % kColumnsPerFlush == 0) plan.flush(vectors, result, stride);
  }
  if (whole < end) {  // the last columns, filled up with zeros
    for (int64_t t = 0; t < tasks; ++t) {
      In* row = tail + t * Op::kStep;
      for (int64_t c = 0; c < Op::kStep; ++c)
        row[c] = rows[t] && whole + c < end ? static_cast<const In*>(rows[t])[whole + c] : In(0);
      place(t, row);
    }
    plan.run(strip, Op::kStep, vectors);
  }
  plan.flush(vectors, result, stride);
}

// The rows of two tiles, one after the other.
struct Rows {
  const void* at[2 * kTile];

  Rows(const void* const* a, int64_t near, const void* const* b, int64_t far) {
    for (int64_t t = 0; t < near; ++t) at[t] = a[t];
    for (int64_t t = 0; t < far; ++t) at[near + t] = b[t];
  }
};

template <class From>
void gramian_of(const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  if (tasks <= kDirectTasks) {
    Plan<From, From, false> plan;
    plan.pairs(int(tasks));
    return sweep(plan, rows, tasks, 0, n, sums, tasks, scratch);
  }
  const int64_t columns = tasks <= kTile ? n : kTiledColumns;
  for (int64_t begin = 0; begin < n; begin += columns) {
    const int64_t end = begin + at_most(n - begin, columns);
    for (int64_t i = 0; i < tasks; i += kTile) {
      const int64_t near = at_most(tasks - i, kTile);
      Plan<From, typename From::Packed, true> pairs;
      pairs.pairs(int(near));
      sweep(pairs, rows + i, near, begin, end, sums + i * tasks + i, tasks, scratch);
      for (int64_t j = i + kTile; j < tasks; j += kTile) {
        const int64_t far = at_most(tasks - j, kTile);
        Plan<From, typename From::Packed, true> products;
        products.products(int(near), int(far));
        const Rows both(rows + i, near, rows + j, far);
        sweep(products, both.at, near + far, begin, end, sums + i * tasks + j, tasks, scratch);
      }
    }
  }
}

template <class From>
void cross_of(const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b, int64_t n, double* sums,
              void* scratch) {
  for (int64_t begin = 0; begin < n; begin += kTiledColumns)
    for (int64_t i = 0; i < tasks_a; i += kTile)
      for (int64_t j = 0; j < tasks_b; j += kTile) {
        const int64_t near = at_most(tasks_a - i, kTile), far = at_most(tasks_b - j, kTile);
        Plan<From, typename From::Packed, true> plan;
        plan.products(int(near), int(far));
        const Rows both(a + i, near, b + j, far);
        sweep(plan, both.at, near + far, begin, begin + at_most(n - begin, kTiledColumns), sums + i * tasks_b + j,
              tasks_b, scratch);
      }
}

#include "cpu/combine.inl"
#include "cpu/table.inl"
