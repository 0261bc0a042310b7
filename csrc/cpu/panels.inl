// Panels: the products of a few near rows with a few far rows, in registers; and plans, the panels that cover all
// pairs.

constexpr int kNear = 4;                 // tasks on the near side of a panel
constexpr int64_t kStrip = 256;          // columns that a panel sweeps while its rows stay in L1
constexpr int64_t kAhead = 512;          // columns: the hardware alone fetches too late when there are many rows
constexpr int kChainsPerFlush = 8;       // registers moved out before their sums move on to float64: bounds it further
constexpr int64_t kTile = 64;            // tasks a tile: its sums stay in L2
constexpr int64_t kTiledColumns = 4096;  // columns of all tasks that stay in the last cache while tiles revisit them
constexpr int64_t kDirectTasks = 16;     // up to here every panel reads the rows where they lie; beyond, rows whose
                                         // distance is a power of two would push each other out of the cache
constexpr int64_t kVectorBytes = kTile * kTile * 64;

inline int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

// One strip of all rows: where it lies in memory, and where the panels that read it first keep a copy for the others.
struct Strip {
  const void* from[2 * kTile];
  void* kept[2 * kTile];
};

// A row on its way from memory: fetched ahead for a later strip, loaded, and kept.
template <class From, class Op, bool Keep>
inline typename Op::Vec first_read(const typename From::Elem* from, typename Op::Elem* kept) {
  __builtin_prefetch(from + kAhead, 0, 2);
  const typename Op::Vec row = From::load(from);
  if constexpr (Keep) Op::keep_row(row, kept);
  return row;
}

// Adds the products of R near tasks, among themselves (Triangle) and with S far tasks, to vector sums. NewNear, NewFar:
// no panel before this one has read these rows.
template <class From, class Op, bool Keep, int R, int S, bool Triangle, bool NewNear, bool NewFar>
void panel(const Strip& strip, int near, int far, int64_t columns, void* opaque) {
  using Elem = typename Op::Elem;
  using Acc = typename Op::Acc;
  constexpr int kTriangle = Triangle ? R * (R + 1) / 2 : 0;
  Acc* const sums = static_cast<Acc*>(opaque);
  const typename From::Elem* near_from[R];
  const typename From::Elem* far_from[S + 1];
  Elem* x[R];
  Elem* y[S + 1];
  for (int i = 0; i < R; ++i) {
    near_from[i] = static_cast<const typename From::Elem*>(strip.from[near + i]);
    x[i] = static_cast<Elem*>(strip.kept[near + i]);
  }
  for (int j = 0; j < S; ++j) {
    far_from[j] = static_cast<const typename From::Elem*>(strip.from[far + j]);
    y[j] = static_cast<Elem*>(strip.kept[far + j]);
  }
  for (int64_t c = 0; c < columns;) {
    const int64_t stop = c + at_most(columns - c, Op::kChain * Op::kStep);
    Acc triangle[kTriangle + 1] = {};
    Acc square[R * S + 1] = {};
    for (; c < stop; c += Op::kStep) {
      typename Op::Vec v[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        if constexpr (NewNear) v[i] = first_read<From, Op, Keep>(near_from[i] + c, x[i] + c);
        else v[i] = Op::load(x[i] + c);
      }
      if constexpr (Triangle) {
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
          for (int j = 0; j <= i; ++j)
            triangle[i * (i + 1) / 2 + j] = Op::fma(v[i], v[j], triangle[i * (i + 1) / 2 + j]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < S; ++j) {
        typename Op::Vec w;
        if constexpr (NewFar) w = first_read<From, Op, Keep>(far_from[j] + c, y[j] + c);
        else w = Op::load(y[j] + c);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) square[i * S + j] = Op::fma(v[i], w, square[i * S + j]);
      }
    }
    asm volatile("" : : : "memory");  // or the compiler loads the sums before the loop, where no register is free
#pragma GCC unroll 16
    for (int k = 0; k < kTriangle; ++k) sums[k] += triangle[k];
#pragma GCC unroll 16
    for (int k = 0; k < R * S; ++k) sums[kTriangle + k] += square[k];
  }
}

using PanelFunction = void (*)(const Strip&, int, int, int64_t, void*);

struct Panel {
  PanelFunction run;
  int near, far;  // first task on either side
  int R, S;
  bool triangle;
  int first;  // where its sums begin
};

template <class From, class Op, bool Keep, bool Triangle, bool NewNear, bool NewFar, int R>
PanelFunction pick_far(int S) {
  switch (S) {
    case 0:
      return panel<From, Op, Keep, R, 0, Triangle, NewNear, NewFar>;
    case 1:
      return panel<From, Op, Keep, R, 1, Triangle, NewNear, NewFar>;
    case 2:
      return panel<From, Op, Keep, R, 2, Triangle, NewNear, NewFar>;
    case 3:
      return panel<From, Op, Keep, R, (kOff < 3 ? kOff : 3), Triangle, NewNear, NewFar>;
    default:
      return panel<From, Op, Keep, R, kOff, Triangle, NewNear, NewFar>;
  }
}

template <class From, class Op, bool Keep, bool NewNear, bool NewFar>
PanelFunction pick(int R, int S, bool triangle) {
  if (triangle) {
    switch (R) {
      case 1:
        return panel<From, Op, Keep, 1, 0, true, NewNear, NewFar>;
      case 2:
        return panel<From, Op, Keep, 2, 0, true, NewNear, NewFar>;
      case 3:
        return panel<From, Op, Keep, 3, 0, true, NewNear, NewFar>;
      default:
        return pick_far<From, Op, Keep, true, NewNear, NewFar, 4>(kFuse ? S : 0);
    }
  }
  switch (R) {
    case 1:
      return pick_far<From, Op, Keep, false, NewNear, NewFar, 1>(S);
    case 2:
      return pick_far<From, Op, Keep, false, NewNear, NewFar, 2>(S);
    case 3:
      return pick_far<From, Op, Keep, false, NewNear, NewFar, 3>(S);
    default:
      return pick_far<From, Op, Keep, false, NewNear, NewFar, 4>(S);
  }
}

// The panels that cover all pairs of some tasks. Keep: the first panel to read a row keeps a copy for the others.
template <class From, class Op, bool Keep>
struct Plan {
  Panel panels[(kTile / kNear) * (kTile / 2 + 1)];
  int count = 0;
  int sums = 0;
  int column_zero = 0;  // the task that stands in column 0 of the result

  void add(int near, int far, int R, int S, bool triangle, bool new_near, bool new_far) {
    const PanelFunction run = new_near && new_far ? pick<From, Op, Keep, true, true>(R, S, triangle)
                              : new_near          ? pick<From, Op, Keep, true, false>(R, S, triangle)
                              : new_far           ? pick<From, Op, Keep, false, true>(R, S, triangle)
                                                  : pick<From, Op, Keep, false, false>(R, S, triangle);
    panels[count++] = {run, near, far, R, S, triangle, sums};
    sums += R * S + (triangle ? R * (R + 1) / 2 : 0);
  }

  // All pairs of one set of tasks.
  void pairs(int tasks) {
    for (int i = 0; i < tasks; i += kNear) {
      const int R = int(at_most(tasks - i, kNear));
      int j = i + R;
      const int beside = !kFuse || R < kNear ? 0 : int(at_most(tasks - j, kOff));
      add(i, j, R, beside, true, i == 0, i == 0);
      for (j += beside; j < tasks; j += kOff) add(i, j, R, int(at_most(tasks - j, kOff)), false, false, i == 0);
    }
  }

  // The first near_tasks against the far_tasks that follow.
  void products(int near_tasks, int far_tasks) {
    column_zero = near_tasks;
    for (int i = 0; i < near_tasks; i += kNear)
      for (int j = 0; j < far_tasks; j += kOff)
        add(i, near_tasks + j, int(at_most(near_tasks - i, kNear)), int(at_most(far_tasks - j, kOff)), false, j == 0,
            i == 0);
  }

  void run(const Strip& strip, int64_t columns, typename Op::Acc* vectors) const {
    for (int p = 0; p < count; ++p)
      panels[p].run(strip, panels[p].near, panels[p].far, columns, vectors + panels[p].first);
  }

  void clear(typename Op::Acc* vectors) const {
    for (int k = 0; k < sums; ++k) vectors[k] = typename Op::Acc{};
  }

  // Moves the vector sums into result[near * stride + far].
  void flush(typename Op::Acc* vectors, double* result, int64_t stride) const {
    for (int p = 0; p < count; ++p) {
      const Panel& panel = panels[p];
      const typename Op::Acc* from = vectors + panel.first;
      if (panel.triangle)
        for (int i = 0; i < panel.R; ++i)
          for (int j = 0; j <= i; ++j) result[(panel.near + j) * stride + panel.near + i] += Op::sum(*from++);
      for (int i = 0; i < panel.R; ++i)
        for (int j = 0; j < panel.S; ++j)
          result[(panel.near + i) * stride + panel.far - column_zero + j] += Op::sum(*from++);
    }
    clear(vectors);
  }
};
