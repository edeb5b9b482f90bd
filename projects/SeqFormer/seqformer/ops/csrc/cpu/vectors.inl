// Vectors of SEQFORMER_VECTOR_BYTES bytes, and conversions from and to numbers in memory; see kernels.inl.

namespace seqformer::cpu {
namespace {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// ---- vectors ----

template <typename E>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  typedef int32_t type;
};
template <>
struct IntegerOf<double> {
  typedef int64_t type;
};

template <typename E>
struct Vector {
  typedef E type __attribute__((vector_size(SEQFORMER_VECTOR_BYTES)));
  typedef E unaligned __attribute__((vector_size(SEQFORMER_VECTOR_BYTES), aligned(alignof(E)), may_alias));
};
template <typename E>
using V = typename Vector<E>::type;
template <typename E>
using Int = typename IntegerOf<E>::type;
template <typename E>
constexpr int64_t kLanes = SEQFORMER_VECTOR_BYTES / sizeof(E);

template <typename E>
constexpr int64_t round_up(int64_t n) {
  return (n + kLanes<E> - 1) / kLanes<E> * kLanes<E>;
}

#define SEQFORMER_LOCAL static inline __attribute__((always_inline))

template <typename E>
SEQFORMER_LOCAL V<E> load_vector(const E* p) {
  return *reinterpret_cast<const typename Vector<E>::unaligned*>(p);
}
template <typename E>
SEQFORMER_LOCAL void store_vector(E* p, V<E> v) {
  *reinterpret_cast<typename Vector<E>::unaligned*>(p) = v;
}
template <typename E>
SEQFORMER_LOCAL V<E> splat(E x) {
  return x - V<E>{};
}
template <typename E>
SEQFORMER_LOCAL E sum_lanes(V<E> v) {
  E sum = 0;
  for (int64_t i = 0; i < kLanes<E>; ++i) sum += v[i];
  return sum;
}

// ---- numbers in memory, read as E and written back ----

SEQFORMER_LOCAL float load_one(const float* p) { return *p; }
SEQFORMER_LOCAL double load_one(const double* p) { return *p; }
SEQFORMER_LOCAL float load_one(const BFloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
SEQFORMER_LOCAL float load_one(const Half* p) {
  const uint32_t sign = static_cast<uint32_t>(p->bits & 0x8000) << 16, rest = p->bits & 0x7fff;
  float x;
  if (rest < 0x0400) {  // zero and subnormal numbers are multiples of 2^-24
    x = static_cast<float>(rest) * 5.9604644775390625e-8f;
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    bits |= sign;
    __builtin_memcpy(&x, &bits, 4);
    return x;
  }
  // The exponents' biases differ by 112; infinity and NaN need twice that.
  const uint32_t bits = sign | ((rest << 13) + (112u << 23) + (rest >= 0x7c00 ? 112u << 23 : 0));
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

SEQFORMER_LOCAL void store_one(float* p, float x) { *p = x; }
SEQFORMER_LOCAL void store_one(double* p, double x) { *p = x; }
SEQFORMER_LOCAL void store_one(BFloat16* p, float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  p->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
SEQFORMER_LOCAL void store_one(Half* p, float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) {
    p->bits = sign | 0x7e00;
  } else if (bits >= 0x477ff000) {  // rounds beyond 65504
    p->bits = sign | 0x7c00;
  } else if (bits < 0x38800000) {  // subnormal: adding 1/2 leaves the rounded multiple of 2^-24 in the last bits
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    __builtin_memcpy(&bits, &magnitude, 4);
    p->bits = sign | static_cast<uint16_t>(bits - 0x3f000000);
  } else {
    p->bits = sign | static_cast<uint16_t>((bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13);
  }
}

SEQFORMER_LOCAL V<float> load_vector_of(const float* p) { return load_vector(p); }
SEQFORMER_LOCAL V<double> load_vector_of(const double* p) { return load_vector(p); }
SEQFORMER_LOCAL V<float> load_vector_of(const BFloat16* p) {
  V<float> v;
  for (int64_t i = 0; i < kLanes<float>; ++i) v[i] = load_one(p + i);
  return v;
}
SEQFORMER_LOCAL V<float> load_vector_of(const Half* p) {
#if SEQFORMER_VECTOR_BYTES == 64
  return (V<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif SEQFORMER_VECTOR_BYTES == 32
  return (V<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  V<float> v;
  for (int64_t i = 0; i < kLanes<float>; ++i) v[i] = load_one(p + i);
  return v;
#endif
}
SEQFORMER_LOCAL void store_vector_of(float* p, V<float> v) { store_vector(p, v); }
SEQFORMER_LOCAL void store_vector_of(double* p, V<double> v) { store_vector(p, v); }
SEQFORMER_LOCAL void store_vector_of(BFloat16* p, V<float> v) {
  for (int64_t i = 0; i < kLanes<float>; ++i) store_one(p + i, v[i]);
}
SEQFORMER_LOCAL void store_vector_of(Half* p, V<float> v) {
#if SEQFORMER_VECTOR_BYTES == 64
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif SEQFORMER_VECTOR_BYTES == 32
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int64_t i = 0; i < kLanes<float>; ++i) store_one(p + i, v[i]);
#endif
}

// Sums of kNumbers neighbouring channels, stored as T.
template <typename E, typename T>
struct Sums {
  static constexpr int64_t kNumbers = kLanes<E>;
  V<E> sum{};

  inline __attribute__((always_inline)) void add(E share, const T* p) { sum += share * load_vector_of(p); }
  inline __attribute__((always_inline)) void add(const Sums& other) { sum += other.sum; }
  inline __attribute__((always_inline)) void store(T* p) const { store_vector_of(p, sum); }
};

// bfloat16 is the upper half of a float, so 32 bits contain two numbers, each converted by one operation.
struct BFloat16Sums {
  static constexpr int64_t kNumbers = 2 * kLanes<float>;
  typedef uint32_t Bits __attribute__((vector_size(SEQFORMER_VECTOR_BYTES)));
  V<float> even{}, odd{};

  inline __attribute__((always_inline)) void add(float share, const BFloat16* p) {
    Bits bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    even += share * (V<float>)(bits << 16);
    odd += share * (V<float>)(bits & 0xffff0000u);
  }
  inline __attribute__((always_inline)) void add(const BFloat16Sums& other) {
    even += other.even;
    odd += other.odd;
  }
  SEQFORMER_LOCAL Bits rounded(V<float> v) {
    const Bits bits = (Bits)v;
    return v == v ? bits + 0x7fffu + ((bits >> 16) & 1u) : bits - bits + 0x7fc00000u;
  }
  inline __attribute__((always_inline)) void store(BFloat16* p) const {
    const Bits bits = (rounded(even) >> 16) | (rounded(odd) & 0xffff0000u);
    __builtin_memcpy(p, &bits, sizeof(bits));
  }
};

// The sums for the usual 32 channels per head.
template <typename E, typename T>
struct WideSums {
  typedef Sums<E, T> type;
};
template <>
struct WideSums<float, BFloat16> {
  typedef BFloat16Sums type;
};

}  // namespace
}  // namespace seqformer::cpu
