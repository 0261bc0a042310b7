// The bodies behind strips.h, included once per instruction set inside a namespace of its own.
//
// The including file defines, for each dtype, a struct Op with
//   Elem             the element as it lies in memory
//   Vec, Acc         a vector of elements as they are multiplied, and of sums; kStep columns a Vec
//   kChain           multiply-adds into one register before it is moved out: bounds the drift of a sum
//   Packed           the Op whose Elem rows are packed into (Float32 for what is converted on the way)
//   load, pack, fma, sum
// and kOff, the most tasks on the far side of a panel, and kFuse, whether a panel has registers for its triangle
// besides. No std templates here: their instantiations would carry this instruction set into other files.

constexpr int kNear = 4;                 // tasks on the near side of a panel
constexpr int64_t kStrip = 256;          // columns that a panel sweeps while its rows stay in L1
constexpr int kStripsPerFlush = 8;      // float32 strips before the sums move on to float64
constexpr int64_t kTile = 64;            // tasks a tile: its sums stay in L2
constexpr int64_t kTiledColumns = 4096;  // columns of all tasks that stay in the last cache while tiles revisit them
constexpr int64_t kWideTasks = 32, kWideColumns = 1024,
                  kNarrowColumns = 512;  // columns packed at once: the longer, the better memory streams
constexpr int64_t kVectorBytes = kTile * kTile * 64;
constexpr int64_t kBufferBytes = 2 * kTile * kNarrowColumns * 8;
constexpr int64_t kDirectTasks = 16;  // up to here rows are read where they lie; beyond, they would collide in the cache

inline int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

// Rows of one strip that a panel copies while it multiplies, so that memory streams behind the arithmetic.
constexpr int kCopies = 3;
constexpr int kAhead = 8;  // pieces
struct Copies {
  const void* from[kCopies];
  const void*
      ahead[kCopies];  // what will be copied some panels later: fetched now, or each row would begin with a wait
  void* to[kCopies];
  int count = 0;
};

// Sums over `columns` columns of the products of R near tasks among themselves (Triangle) and with S far tasks. From is
// the Op of the rows to be copied.
template <class From, class Op, int R, int S, bool Triangle>
void panel(const void* const* near, const void* const* far, int64_t columns, void* opaque, const Copies& copies) {
  using Elem = typename Op::Elem;
  using Acc = typename Op::Acc;
  constexpr int kTriangle = Triangle ? R * (R + 1) / 2 : 0;
  Acc* const sums = static_cast<Acc*>(opaque);
  const Elem* x[R];
  const Elem* y[S + 1];
  for (int i = 0; i < R; ++i) x[i] = static_cast<const Elem*>(near[i]);
  for (int j = 0; j < S; ++j) y[j] = static_cast<const Elem*>(far[j]);
  for (int64_t c = 0; c < columns;) {
    const int64_t stop = columns - c < Op::kChain * Op::kStep ? columns : c + Op::kChain * Op::kStep;
    Acc triangle[kTriangle + 1] = {};
    Acc square[R * S + 1] = {};
    for (; c < stop; c += Op::kStep) {
      for (int k = 0; k < copies.count; ++k) {
        __builtin_prefetch(static_cast<const typename From::Elem*>(copies.ahead[k]) + c, 0, 2);
        From::pack(static_cast<const typename From::Elem*>(copies.from[k]) + c,
                   static_cast<typename From::Packed::Elem*>(copies.to[k]) + c);
      }
      typename Op::Vec v[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) v[i] = Op::load(x[i] + c);
      if constexpr (Triangle) {
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
          for (int j = 0; j <= i; ++j)
            triangle[i * (i + 1) / 2 + j] = Op::fma(v[i], v[j], triangle[i * (i + 1) / 2 + j]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < S; ++j) {
        const typename Op::Vec w = Op::load(y[j] + c);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) square[i * S + j] = Op::fma(v[i], w, square[i * S + j]);
      }
    }
#pragma GCC unroll 16
    for (int k = 0; k < kTriangle; ++k) sums[k] += triangle[k];
#pragma GCC unroll 16
    for (int k = 0; k < R * S; ++k) sums[kTriangle + k] += square[k];
  }
}

using PanelFunction = void (*)(const void* const*, const void* const*, int64_t, void*, const Copies&);

struct Panel {
  PanelFunction run;
  int near, far;  // first task on either side
  int R, S;
  bool triangle;
  int first;  // where its sums begin
};

template <class From, class Op, bool Triangle, int R>
PanelFunction pick_far(int S) {
  switch (S) {
    case 0:
      return panel<From, Op, R, 0, Triangle>;
    case 1:
      return panel<From, Op, R, 1, Triangle>;
    case 2:
      return panel<From, Op, R, 2, Triangle>;
    case 3:
      return panel < From, Op, R, kOff >= 3 ? 3 : 2, Triangle > ;
    default:
      return panel<From, Op, R, kOff, Triangle>;
  }
}

template <class From, class Op>
PanelFunction pick(int R, int S, bool triangle) {
  if (triangle) {
    switch (R) {
      case 1:
        return panel<From, Op, 1, 0, true>;
      case 2:
        return panel<From, Op, 2, 0, true>;
      case 3:
        return panel<From, Op, 3, 0, true>;
      default:
        return kFuse ? pick_far<From, Op, kFuse, 4>(S) : panel<From, Op, 4, 0, true>;
    }
  }
  switch (R) {
    case 1:
      return pick_far<From, Op, false, 1>(S);
    case 2:
      return pick_far<From, Op, false, 2>(S);
    case 3:
      return pick_far<From, Op, false, 3>(S);
    default:
      return pick_far<From, Op, false, 4>(S);
  }
}

struct Plan {
  Panel panels[(kTile / kNear) * (kTile / 2 + 1)];
  int count = 0;
  int sums = 0;
  int columns_from = 0;  // the task that stands in column 0 of the result

  template <class From, class Op>
  void add(int near, int far, int R, int S, bool triangle) {
    panels[count++] = {pick<From, Op>(R, S, triangle), near, far, R, S, triangle, sums};
    sums += R * S + (triangle ? R * (R + 1) / 2 : 0);
  }

  // All pairs of one set of tasks.
  template <class From, class Op>
  void pairs(int tasks) {
    for (int i = 0; i < tasks; i += kNear) {
      const int R = tasks - i < kNear ? tasks - i : kNear;
      int j = i + R;
      const int beside = !kFuse || R < kNear ? 0 : (tasks - j < kOff ? tasks - j : kOff);
      add<From, Op>(i, j, R, beside, true);
      for (j += beside; j < tasks; j += kOff) add<From, Op>(i, j, R, tasks - j < kOff ? tasks - j : kOff, false);
    }
  }

  // The first near_tasks against the far_tasks that follow.
  template <class From, class Op>
  void products(int near_tasks, int far_tasks) {
    columns_from = near_tasks;
    for (int i = 0; i < near_tasks; i += kNear)
      for (int j = 0; j < far_tasks; j += kOff)
        add<From, Op>(i, near_tasks + j, near_tasks - i < kNear ? near_tasks - i : kNear,
                      far_tasks - j < kOff ? far_tasks - j : kOff, false);
  }

  template <class Op>
  void run(int p, const void* const* at, int64_t columns, typename Op::Acc* vectors, const Copies& copies = {}) const {
    panels[p].run(at + panels[p].near, at + panels[p].far, columns, vectors + panels[p].first, copies);
  }
};

// Moves the vector sums of a plan into sums[near * stride + far] and clears them.
template <class Op>
void flush(const Plan& plan, typename Op::Acc* vectors, double* sums, int64_t stride) {
  for (int p = 0; p < plan.count; ++p) {
    const Panel& panel = plan.panels[p];
    typename Op::Acc* from = vectors + panel.first;
    if (panel.triangle)
      for (int i = 0; i < panel.R; ++i)
        for (int j = 0; j <= i; ++j) sums[(panel.near + j) * stride + panel.near + i] += Op::sum(*from++);
    for (int i = 0; i < panel.R; ++i)
      for (int j = 0; j < panel.S; ++j)
        sums[(panel.near + i) * stride + panel.far - plan.columns_from + j] += Op::sum(*from++);
  }
  for (int k = 0; k < plan.sums; ++k) vectors[k] = typename Op::Acc{};
}

// Copies rows side by side, [strip][task][kStrip], a piece (one row of one strip) at a time, so that the copying of the
// next columns can be spread over the panels of these. A missing row, and the columns up to the next full vector,
// become zero.
template <class Op>
struct Packer {
  using Elem = typename Op::Elem;
  using To = typename Op::Packed::Elem;
  const void* const* rows;
  int64_t tasks;
  int64_t column = 0, n = 0, strips = 0, next = 0;
  To* to = nullptr;

  Packer(const void* const* rows, int64_t tasks) : rows(rows), tasks(tasks) {}

  void start(int64_t from, int64_t columns, To* buffer) {
    column = from, n = columns, to = buffer, next = 0;
    strips = (n + kStrip - 1) / kStrip;
  }

  int64_t pieces() const { return tasks * strips; }

  // The next `limit` pieces, if they are whole strips of rows that are there, for a panel to copy; else what is not is
  // done here.
  Copies take(int64_t limit) {
    Copies copies;
    for (; copies.count < limit && next < pieces(); ++next) {
      const int64_t task = next / strips, first = next % strips * kStrip;
      if (!rows[task] || n - first < kStrip) {
        pack(task, first);
        continue;
      }
      copies.ahead[copies.count] = address(next + kAhead);
      copies.from[copies.count] = static_cast<const Elem*>(rows[task]) + column + first;
      copies.to[copies.count++] = place(task, first);
    }
    return copies;
  }

  // Where piece k begins, counting on into the columns after these; a fetch beyond the end of a row does no harm.
  const Elem* address(int64_t k) const {
    const int64_t beyond = k / pieces();
    k %= pieces();
    const Elem* row = static_cast<const Elem*>(rows[k / strips]);
    return row ? row + column + beyond * n + k % strips * kStrip : nullptr;
  }

  void finish() {
    for (; next < pieces(); ++next) pack(next / strips, next % strips * kStrip);
  }

  To* place(int64_t task, int64_t first) const { return to + (first / kStrip * tasks + task) * kStrip; }

  void pack(int64_t task, int64_t first) {
    const int64_t columns = n - first < kStrip ? n - first : kStrip;
    const int64_t padded = (columns + Op::Packed::kStep - 1) / Op::Packed::kStep * Op::Packed::kStep;
    To* at = place(task, first);
    int64_t c = 0;
    if (rows[task]) {
      const Elem* from = static_cast<const Elem*>(rows[task]) + column + first;
      for (; c + Op::kPackStep <= columns; c += Op::kPackStep) Op::pack(from + c, at + c);
      for (; c < columns; ++c) at[c] = Op::pack_one(from[c]);
    }
    for (; c < padded; ++c) at[c] = To(0);
  }
};

// Few tasks: the rows are read where they lie.
template <class Op>
void gramian_direct(const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  using Elem = typename Op::Elem;
  typename Op::Acc* vectors = static_cast<typename Op::Acc*>(scratch);
  Plan plan;
  plan.pairs<Op, Op>(int(tasks));
  for (int k = 0; k < plan.sums; ++k) vectors[k] = typename Op::Acc{};
  const int64_t whole = n / Op::kStep * Op::kStep;
  alignas(64) static const Elem zeros[kStrip] = {};
  const void* at[kDirectTasks];
  int strips = 0;
  for (int64_t c = 0; c < whole; c += kStrip) {
    for (int64_t t = 0; t < tasks; ++t) at[t] = rows[t] ? static_cast<const Elem*>(rows[t]) + c : zeros;
    for (int p = 0; p < plan.count; ++p) plan.run<Op>(p, at, whole - c < kStrip ? whole - c : kStrip, vectors);
    if (++strips % kStripsPerFlush == 0) flush<Op>(plan, vectors, sums, tasks);
  }
  if (whole < n) {  // the last columns, filled up with zeros
    Elem last[kDirectTasks * Op::kStep];
    Elem* tail = last;
    for (int64_t t = 0; t < tasks; ++t, tail += Op::kStep) {
      for (int64_t c = 0; c < Op::kStep; ++c)
        tail[c] = rows[t] && whole + c < n ? static_cast<const Elem*>(rows[t])[whole + c] : Elem(0);
      at[t] = tail;
    }
    for (int p = 0; p < plan.count; ++p) plan.run<Op>(p, at, Op::kStep, vectors);
  }
  flush<Op>(plan, vectors, sums, tasks);
}

// Columns [begin, end) of some rows; far_tasks 0: all pairs, else the first near_tasks rows against the far_tasks after
// them.
template <class Op>
void tile(const void* const* rows, int64_t near_tasks, int64_t far_tasks, int64_t begin, int64_t end, double* sums,
          int64_t stride, void* scratch) {
  using Packed = typename Op::Packed;
  using To = typename Packed::Elem;
  const int64_t tasks = near_tasks + far_tasks;
  const int64_t width = tasks <= kWideTasks ? kWideColumns : kNarrowColumns;
  char* at_byte = static_cast<char*>(scratch);
  typename Packed::Acc* vectors = static_cast<typename Packed::Acc*>(scratch);
  To* buffers[2] = {reinterpret_cast<To*>(at_byte + kVectorBytes),
                    reinterpret_cast<To*>(at_byte + kVectorBytes + kBufferBytes)};
  Plan plan;
  if (far_tasks) plan.products<Op, Packed>(int(near_tasks), int(far_tasks));
  else plan.pairs<Op, Packed>(int(near_tasks));
  for (int k = 0; k < plan.sums; ++k) vectors[k] = typename Packed::Acc{};
  Packer<Op> packer(rows, tasks);
  packer.start(begin, end - begin < width ? end - begin : width, buffers[0]);
  packer.finish();
  const void* at[2 * kTile];
  int strips = 0, buffer = 0;
  for (int64_t c = begin; c < end; c += width, buffer ^= 1) {
    const int64_t n = end - c < width ? end - c : width, left = end - c - n;
    packer.start(c + n, left < width ? left : width, buffers[buffer ^ 1]);
    const int64_t share = at_most((packer.pieces() * kStrip - 1) / (plan.count * n) + 1, kCopies);  // pieces a panel
    for (int64_t first = 0; first < n; first += kStrip) {
      const int64_t columns = n - first < kStrip ? n - first : kStrip;
      for (int64_t t = 0; t < tasks; ++t) at[t] = buffers[buffer] + (first / kStrip * tasks + t) * kStrip;
      const int64_t padded = (columns + Packed::kStep - 1) / Packed::kStep * Packed::kStep;
      for (int p = 0; p < plan.count; ++p)
        plan.run<Packed>(p, at, padded, vectors, columns == kStrip ? packer.take(share) : Copies());
      if (++strips % kStripsPerFlush == 0) flush<Packed>(plan, vectors, sums, stride);
    }
    packer.finish();
  }
  flush<Packed>(plan, vectors, sums, stride);
}

// The rows of two tiles, one after the other.
struct Rows {
  const void* at[2 * kTile];
  int64_t near, far;

  Rows(const void* const* a, int64_t near, const void* const* b, int64_t far) : near(near), far(far) {
    for (int64_t t = 0; t < near; ++t) at[t] = a[t];
    for (int64_t t = 0; t < far; ++t) at[near + t] = b[t];
  }
};

template <class Op>
void gramian_of(const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  if (tasks <= kDirectTasks) return gramian_direct<Op>(rows, tasks, n, sums, scratch);
  const int64_t columns = tasks <= kTile ? n : kTiledColumns;
  for (int64_t begin = 0; begin < n; begin += columns) {
    const int64_t end = begin + at_most(n - begin, columns);
    for (int64_t i = 0; i < tasks; i += kTile) {
      const int64_t near = at_most(tasks - i, kTile);
      tile<Op>(rows + i, near, 0, begin, end, sums + i * tasks + i, tasks, scratch);
      for (int64_t j = i + kTile; j < tasks; j += kTile) {
        const Rows both(rows + i, near, rows + j, at_most(tasks - j, kTile));
        tile<Op>(both.at, both.near, both.far, begin, end, sums + i * tasks + j, tasks, scratch);
      }
    }
  }
}

template <class Op>
void cross_of(const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b, int64_t n, double* sums,
              void* scratch) {
  for (int64_t begin = 0; begin < n; begin += kTiledColumns)
    for (int64_t i = 0; i < tasks_a; i += kTile)
      for (int64_t j = 0; j < tasks_b; j += kTile) {
        const Rows both(a + i, at_most(tasks_a - i, kTile), b + j, at_most(tasks_b - j, kTile));
        tile<Op>(both.at, both.near, both.far, begin, begin + at_most(n - begin, kTiledColumns), sums + i * tasks_b + j,
                 tasks_b, scratch);
      }
}

// --- combine
// -----------------------------------------------------------------------------------------------------------

constexpr int kRowsAtOnce = 8;
constexpr int64_t kCombineStrip = 1024;  // columns whose sums stay in L1 while further rows are added

// columns [c, c + 4 vectors): adds `count` weighted rows to `before` (null: to zero).
template <class Op, int Vectors>
inline void weighted(const typename Op::Elem* const* rows, const typename Op::Real* weights, int count, int64_t c,
                     typename Op::Wide* sum) {
  for (int t = 0; t < count; ++t)
#pragma GCC unroll 4
    for (int k = 0; k < Vectors; ++k) sum[k] += Op::widen(rows[t] + c + k * Op::kWide) * weights[t];
}

template <class Op>
void combine_of(const void* const* rows, int64_t tasks, const double* weights, int64_t n, void* out, void* scratch) {
  using Elem = typename Op::Elem;
  using Wide = typename Op::Wide;
  constexpr int64_t kBlock = 4 * Op::kWide;
  typename Op::Real* sums = static_cast<typename Op::Real*>(scratch);  // [kCombineStrip]
  const Elem* at[kRowsAtOnce];
  typename Op::Real w[kRowsAtOnce];
  Elem* to = static_cast<Elem*>(out);
  const int64_t strip = tasks <= kRowsAtOnce ? n : kCombineStrip;
  for (int64_t begin = 0; begin < n; begin += strip) {
    const int64_t end = n - begin < strip ? n : begin + strip;
    int64_t t = 0;
    bool first = true, last = false;
    while (!last) {
      int count = 0;
      for (; t < tasks && count < kRowsAtOnce; ++t)
        if (rows[t]) {
          at[count] = static_cast<const Elem*>(rows[t]);
          w[count++] = typename Op::Real(weights[t]);
        }
      last = t == tasks;
      int64_t c = begin;
      for (; c + kBlock <= end; c += kBlock) {
        Wide sum[4] = {};
        if (!first)
          for (int k = 0; k < 4; ++k) sum[k] = Op::wide(sums + c - begin + k * Op::kWide);
        weighted<Op, 4>(at, w, count, c, sum);
        for (int k = 0; k < 4; ++k) {
          if (last) Op::narrow(sum[k], to + c + k * Op::kWide);
          else Op::keep(sum[k], sums + c - begin + k * Op::kWide);
        }
      }
      for (; c < end; ++c) {
        typename Op::Real sum = first ? 0 : sums[c - begin];
        for (int k = 0; k < count; ++k) sum += Op::one(at[k][c]) * w[k];
        if (last) to[c] = Op::narrow_one(sum);
        else sums[c - begin] = sum;
      }
      first = false;
    }
  }
}

// --- the table of one instruction set
// ----------------------------------------------------------------------------------

inline void gramian_any(Dtype dtype, const void* const* rows, int64_t tasks, int64_t n, double* sums, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return gramian_of<Float16>(rows, tasks, n, sums, scratch);
    case Dtype::kBFloat16:
      return gramian_of<BFloat16>(rows, tasks, n, sums, scratch);
    case Dtype::kFloat32:
      return gramian_of<Float32>(rows, tasks, n, sums, scratch);
    case Dtype::kFloat64:
      return gramian_of<Float64>(rows, tasks, n, sums, scratch);
  }
}

inline void cross_any(Dtype dtype, const void* const* a, int64_t tasks_a, const void* const* b, int64_t tasks_b,
                      int64_t n, double* sums, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return cross_of<Float16>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kBFloat16:
      return cross_of<BFloat16>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kFloat32:
      return cross_of<Float32>(a, tasks_a, b, tasks_b, n, sums, scratch);
    case Dtype::kFloat64:
      return cross_of<Float64>(a, tasks_a, b, tasks_b, n, sums, scratch);
  }
}

inline void combine_any(Dtype dtype, const void* const* rows, int64_t tasks, const double* weights, int64_t n,
                        void* out, void* scratch) {
  switch (dtype) {
    case Dtype::kFloat16:
      return combine_of<Float16>(rows, tasks, weights, n, out, scratch);
    case Dtype::kBFloat16:
      return combine_of<BFloat16>(rows, tasks, weights, n, out, scratch);
    case Dtype::kFloat32:
      return combine_of<Float32>(rows, tasks, weights, n, out, scratch);
    case Dtype::kFloat64:
      return combine_of<Float64>(rows, tasks, weights, n, out, scratch);
  }
}

inline int64_t multiply_adds_of(int64_t iterations, float* sink) {
  constexpr int kIndependent = 12;  // latency times throughput, on any processor so far
  Float32::Acc sum[kIndependent] = {};
  Float32::Vec x = Float32::load(sink);
  for (int k = 0; k < kIndependent; ++k) sum[k] += float(k);  // or the compiler would compute one of them only
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < kIndependent; ++k) sum[k] = Float32::fma(sum[k], x, x);
  for (int k = 1; k < kIndependent; ++k) sum[0] += sum[k];
  Float32::pack(reinterpret_cast<const float*>(&sum[0]), sink);
  return iterations * kIndependent * Float32::kStep;
}
