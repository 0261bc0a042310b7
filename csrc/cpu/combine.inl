// The weighted sum of rows, a strip at a time.

constexpr int kRowsAtOnce = 8;
constexpr int64_t kCombineStrip = 1024;  // columns whose sums stay in L1 while further rows are added

// Adds `count` weighted rows, from column c on, to a few vectors of sums.
template <class Op, int Vectors>
inline void weighted(const typename Op::Elem* const* rows, const typename Op::Real* weights, int count, int64_t c,
                     typename Op::Wide* sum) {
  for (int t = 0; t < count; ++t)
#pragma GCC unroll 4
    for (int k = 0; k < Vectors; ++k) {
      __builtin_prefetch(rows[t] + c + k * Op::kWide + kAhead, 0, 2);
      sum[k] += Op::widen(rows[t] + c + k * Op::kWide) * weights[t];
    }
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
