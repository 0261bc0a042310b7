// The Ops of strips.inl on vectors of kBytes bytes, in the compiler's own vector types. The including file defines
// kBytes, the conversions load_half and store_half, and sum_floats and sum_doubles, the sum of a vector in float64.

typedef float VecF __attribute__((vector_size(kBytes)));
typedef float VecFAt __attribute__((vector_size(kBytes), aligned(4), may_alias));
typedef double VecD __attribute__((vector_size(kBytes)));
typedef double VecDAt __attribute__((vector_size(kBytes), aligned(8), may_alias));
typedef uint32_t VecU __attribute__((vector_size(kBytes)));
typedef uint16_t VecH __attribute__((vector_size(kBytes / 2)));
typedef uint16_t VecHAt __attribute__((vector_size(kBytes / 2), aligned(2), may_alias));

constexpr int64_t kFloats = kBytes / 4;

struct Float32 {
  using Elem = float;
  using Vec = VecF;
  using Acc = VecF;
  using Packed = Float32;
  using Real = float;
  using Wide = VecF;
  static constexpr int64_t kStep = kFloats, kWide = kFloats;
  static constexpr int kChain = 16;

  static inline Vec load(const float* p) { return *reinterpret_cast<const VecFAt*>(p); }
  static inline Acc fma(Vec a, Vec b, Acc c) { return a * b + c; }
  static inline double sum(Acc v) { return sum_floats(v); }
  static inline void keep_row(Vec v, float* p) { *reinterpret_cast<VecFAt*>(p) = v; }
  static inline Wide widen(const float* p) { return load(p); }
  static inline Wide wide(const float* p) { return load(p); }
  static inline void keep(Wide v, float* p) { keep_row(v, p); }
  static inline void narrow(Wide v, float* p) { keep(v, p); }
  static inline float one(float x) { return x; }
  static inline float narrow_one(float x) { return x; }
};

struct Float64 {
  using Elem = double;
  using Vec = VecD;
  using Acc = VecD;
  using Packed = Float64;
  using Real = double;
  using Wide = VecD;
  static constexpr int64_t kStep = kBytes / 8, kWide = kStep;
  static constexpr int kChain = 16;

  static inline Vec load(const double* p) { return *reinterpret_cast<const VecDAt*>(p); }
  static inline Acc fma(Vec a, Vec b, Acc c) { return a * b + c; }
  static inline double sum(Acc v) { return sum_doubles(v); }
  static inline void keep_row(Vec v, double* p) { *reinterpret_cast<VecDAt*>(p) = v; }
  static inline Wide widen(const double* p) { return load(p); }
  static inline Wide wide(const double* p) { return load(p); }
  static inline void keep(Wide v, double* p) { keep_row(v, p); }
  static inline void narrow(Wide v, double* p) { keep(v, p); }
  static inline double one(double x) { return x; }
  static inline double narrow_one(double x) { return x; }
};

// What the two 16-bit formats share: multiplied, packed and summed as float32.
struct Converted {
  using Elem = uint16_t;
  using Vec = VecF;
  using Acc = VecF;
  using Packed = Float32;
  using Real = float;
  using Wide = VecF;
  static constexpr int64_t kStep = kFloats, kWide = kFloats;
  static constexpr int kChain = 16;

  static inline Acc fma(Vec a, Vec b, Acc c) { return a * b + c; }
  static inline double sum(Acc v) { return Float32::sum(v); }
  static inline Wide wide(const float* p) { return Float32::load(p); }
  static inline void keep(Wide v, float* p) { Float32::keep(v, p); }
};

struct BFloat16 : Converted {
  static inline Vec load(const uint16_t* p) {
    const VecH h = *reinterpret_cast<const VecHAt*>(p);
    return reinterpret_cast<VecF>(__builtin_convertvector(h, VecU) << 16);
  }
  static inline Wide widen(const uint16_t* p) { return load(p); }
  static inline void narrow(Wide v, uint16_t* p) {
    const VecU bits = reinterpret_cast<VecU>(v);
    const VecU rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const VecU is_nan = reinterpret_cast<VecU>((bits & 0x7fffffffu) > 0x7f800000u);  // all ones where NaN
    *reinterpret_cast<VecHAt*>(p) = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), VecH);
  }
  static inline float one(uint16_t x) { return bfloat16_to_float(x); }
  static inline uint16_t narrow_one(float x) { return float_to_bfloat16(x); }
};

struct Float16 : Converted {
  static inline Vec load(const uint16_t* p) { return load_half(p); }
  static inline Wide widen(const uint16_t* p) { return load(p); }
  static inline void narrow(Wide v, uint16_t* p) { store_half(v, p); }
  static inline float one(uint16_t x) { return float16_to_float(x); }
  static inline uint16_t narrow_one(float x) { return float_to_float16(x); }
};
