// SPDX-License-Identifier: Apache-2.0
// Arithmetic of FlexLLM-Allo where C++ differs: floor division, shifts beyond the width, wrapping,
// conversions of floats, and mathematical functions that are the C library's in C simulation.
#ifndef FLEXLLM_NUMERICS_H
#define FLEXLLM_NUMERICS_H

#include <algorithm>
#include <hls_math.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

namespace flexllm {

// The low W bits of x, read as a signed number.
template <int W>
inline typename std::conditional<(W <= 32), int32_t, int64_t>::type wrap(int64_t x) {
  typedef typename std::conditional<(W <= 32), int32_t, int64_t>::type result;
  return (result)((int64_t)((uint64_t)x << (64 - W)) >> (64 - W));
}

// Division towards minus infinity; 0 for a divisor of 0.
template <typename T>
inline T floor_div(T a, T b) {
  if (b == T(0)) return T(0);
  if (b == T(-1)) return T(T(0) - a);
  T q = T(a / b);
  T r = T(a - q * b);
  return (r != T(0) && ((r < T(0)) != (b < T(0)))) ? T(q - T(1)) : q;
}
template <>
inline int64_t floor_div<int64_t>(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  int64_t q = a / b, r = a % b;
  return (r != 0 && ((r < 0) != (b < 0))) ? q - 1 : q;
}
template <>
inline uint64_t floor_div<uint64_t>(uint64_t a, uint64_t b) {
  return b == 0 ? 0 : a / b;
}

// The remainder with the sign of the divisor; a for a divisor of 0.
template <typename T>
inline T floor_mod(T a, T b) {
  if (b == T(0)) return a;
  if (b == T(-1)) return T(0);
  T r = T(a % b);
  return (r != T(0) && ((r < T(0)) != (b < T(0)))) ? T(r + b) : r;
}
template <>
inline uint64_t floor_mod<uint64_t>(uint64_t a, uint64_t b) {
  return b == 0 ? a : a % b;
}

// Shifts by any amount; W and LIMIT are where nothing of the value is left.
template <int W>
inline uint64_t shift_left(uint64_t x, uint64_t amount) {
  return amount >= W ? 0 : x << amount;
}
template <typename T, int LIMIT>
inline T shift_right(T x, uint64_t amount) {
  return amount > LIMIT ? (x < T(0) ? T(-1) : T(0)) : T(x >> (int)amount);
}

// A raw fixed-point value to an integer, towards zero.
template <typename T>
inline T fixed_to_int(T raw, int fracs) {
  return T((raw < T(0) ? T(raw + ((T(1) << fracs) - 1)) : raw) >> fracs);
}

// Towards zero; 0 for NaN, infinities and magnitudes of 2^63 and more.
template <typename T>
inline int64_t to_int(T x) {
  return (x > T(-9223372036854775808.0) && x < T(9223372036854775808.0)) ? (int64_t)x : 0;
}
// The raw value of a fixed-point number with that many fraction bits, floored.
inline int64_t to_raw(double x, int fracs) { return to_int(::floor(::ldexp(x, fracs))); }

#ifdef __SYNTHESIS__
#define FLEXLLM_MATH(name, single, twice)                                  \
  inline float name(float x) { return hls::name(x); }                     \
  inline double name(double x) { return hls::name(x); }
#else
#define FLEXLLM_MATH(name, single, twice)                                  \
  inline float name(float x) { return ::single(x); }                      \
  inline double name(double x) { return ::twice(x); }
#endif
FLEXLLM_MATH(exp, expf, exp)
FLEXLLM_MATH(log, logf, log)
FLEXLLM_MATH(log2, log2f, log2)
FLEXLLM_MATH(log10, log10f, log10)
FLEXLLM_MATH(sqrt, sqrtf, sqrt)
FLEXLLM_MATH(sin, sinf, sin)
FLEXLLM_MATH(cos, cosf, cos)
FLEXLLM_MATH(tan, tanf, tan)
FLEXLLM_MATH(tanh, tanhf, tanh)
FLEXLLM_MATH(round, roundf, round)
FLEXLLM_MATH(floor, floorf, floor)
#undef FLEXLLM_MATH

inline float abs(float x) { return ::fabsf(x); }
inline double abs(double x) { return ::fabs(x); }
#ifdef __SYNTHESIS__
inline float power(float x, float y) { return hls::pow(x, y); }
inline double power(double x, double y) { return hls::pow(x, y); }
#else
inline float power(float x, float y) { return ::powf(x, y); }
inline double power(double x, double y) { return ::pow(x, y); }
#endif

// The remainder with the sign of the divisor, as Python's.
inline float float_mod(float x, float y) {
  float r = ::fmodf(x, y);
  return (r != 0 && ((r < 0) != (y < 0))) ? r + y : r;
}
inline double float_mod(double x, double y) {
  double r = ::fmod(x, y);
  return (r != 0 && ((r < 0) != (y < 0))) ? r + y : r;
}

// The same bits as another type.
template <typename To, typename From>
inline To same_bits(From from) {
#ifdef __SYNTHESIS__
  union {
    From from;
    To to;
  } both;
  both.from = from;
  return both.to;
#else
  static_assert(sizeof(From) == sizeof(To), "types of different widths");
  To to;
  ::memcpy((void *)&to, (const void *)&from, sizeof(To));
  return to;
#endif
}
inline uint64_t float_bits(float x) { return same_bits<uint32_t>(x); }
inline uint64_t float_bits(double x) { return same_bits<uint64_t>(x); }
template <typename T>
inline T float_from_bits(uint64_t bits);
template <>
inline float float_from_bits<float>(uint64_t bits) {
  return same_bits<float>((uint32_t)bits);
}
template <>
inline double float_from_bits<double>(uint64_t bits) {
  return same_bits<double>(bits);
}

// The upper half of a float; rounded to nearest even.
class bfloat16 {
  uint16_t bits_;

public:
  bfloat16() = default;
  explicit bfloat16(float x) {
    uint32_t bits = same_bits<uint32_t>(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits_ = nan ? (uint16_t)((bits >> 16) | 0x40) : (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
  }
  // Once rounded to odd, a float keeps what the second rounding needs.
  explicit bfloat16(double x) {
    float f = (float)x;
    uint32_t bits = same_bits<uint32_t>(f);
    if ((double)f != x && (bits & 1) == 0 && f - f == 0) bits += (::fabs((double)f) < ::fabs(x)) ? 1 : -1;
    *this = bfloat16(same_bits<float>(bits));
  }
  explicit operator float() const { return same_bits<float>((uint32_t)bits_ << 16); }
  explicit operator double() const { return (double)(float)*this; }
  uint16_t bits() const { return bits_; }
  void set_bits(uint16_t bits) { bits_ = bits; }
};
inline uint64_t float_bits(bfloat16 x) { return x.bits(); }
template <>
inline bfloat16 float_from_bits<bfloat16>(uint64_t bits) {
  bfloat16 x;
  x.set_bits((uint16_t)bits);
  return x;
}
inline uint64_t float_bits(half x) { return same_bits<uint16_t>(x); }
template <>
inline half float_from_bits<half>(uint64_t bits) {
  return same_bits<half>((uint16_t)bits);
}

} // namespace flexllm

#endif
