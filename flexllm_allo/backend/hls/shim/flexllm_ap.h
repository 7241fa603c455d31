// SPDX-License-Identifier: Apache-2.0
// Raw values of ap_fixed, and arithmetic beyond 64 bits.
#ifndef FLEXLLM_AP_H
#define FLEXLLM_AP_H

#include <ap_fixed.h>
#include <ap_int.h>
#include <string.h>

#include "flexllm_numerics.h"

namespace flexllm {

// The smallest of int, int64_t and uint64_t that holds W bits.
template <int W, bool SIGNED>
struct carrier {
  typedef typename std::conditional<(W < 32 || (SIGNED && W == 32)), int,
                                    typename std::conditional<(SIGNED || W < 64), int64_t, uint64_t>::type>::type type;
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
inline typename carrier<W, true>::type raw(const ap_fixed<W, I, Q, O, N> &x) {
  return (typename carrier<W, true>::type)ap_int<W>(x.range(W - 1, 0));
}
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
inline typename carrier<W, false>::type raw(const ap_ufixed<W, I, Q, O, N> &x) {
  return (typename carrier<W, false>::type)ap_uint<W>(x.range(W - 1, 0));
}
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
inline ap_int<W> wide_raw(const ap_fixed<W, I, Q, O, N> &x) {
  return ap_int<W>(x.range(W - 1, 0));
}
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
inline ap_uint<W> wide_raw(const ap_ufixed<W, I, Q, O, N> &x) {
  return ap_uint<W>(x.range(W - 1, 0));
}

// The fixed-point number with these bits.
template <typename F, typename T>
inline F from_raw(const T &raw) {
  F out;
  out.range(F::width - 1, 0) = ap_int<F::width>(raw);
  return out;
}

// Whether a word is stored as 64-bit limbs, low ones first: C simulation then touches just those that
// hold a lane, since shifting words of hundreds of bits is slow.
template <int W>
struct in_limbs {
  static const bool value = W > 64 && sizeof(ap_uint<W>) == (W + 63) / 64 * 8;
};

// N bits from bit `low` on; those outside of the word are 0.
template <int N, int W>
inline typename carrier<N, false>::type bits(const ap_uint<W> &word, int low) {
  typedef typename carrier<N, false>::type result;
  if (low < 0 || low >= W) return 0;
#ifndef __SYNTHESIS__
  if (in_limbs<W>::value) {
    uint64_t limbs[2] = {0, 0};
    int first = low / 64, shift = low % 64;
    ::memcpy(limbs, (const char *)&word + 8 * first, first < (W - 1) / 64 ? 16 : 8);
    uint64_t out = shift ? (limbs[0] >> shift) | (limbs[1] << (64 - shift)) : limbs[0];
    return (result)(out & (~UINT64_C(0) >> (64 - N)));
  }
#endif
  return (result)ap_uint<N>(word >> low);
}

// Replace N bits from bit `low` on.
template <int N, int W>
inline void set_bits(ap_uint<W> &word, int low, uint64_t value) {
#ifndef __SYNTHESIS__
  if (in_limbs<W>::value) {
    const uint64_t mask = ~UINT64_C(0) >> (64 - N);
    uint64_t limbs[2] = {0, 0};
    int first = low / 64, shift = low % 64, bytes = first < (W - 1) / 64 ? 16 : 8;
    char *place = (char *)&word + 8 * first;
    ::memcpy(limbs, place, bytes);
    limbs[0] = (limbs[0] & ~(mask << shift)) | ((value & mask) << shift);
    if (shift + N > 64) limbs[1] = (limbs[1] & ~(mask >> (64 - shift))) | ((value & mask) >> (64 - shift));
    ::memcpy(place, limbs, bytes);
    return;
  }
#endif
  word.range(low + N - 1, low) = ap_uint<N>(value);
}

template <int W, typename T>
inline T wide_shift_left(const T &x, uint64_t amount) {
  return amount >= W ? T(0) : T(x << (int)amount);
}

// Nearest, ties to even: the top 62 bits with a sticky bit below them decide.
template <typename F, typename T>
inline F wide_to_float(const T &x) {
  typedef ap_int<T::width + 1> signed_type;
  signed_type value = x;
  bool negative = value < 0;
  if (negative) value = signed_type(-value);
  int shift = 0;
  bool sticky = false;
  while (value >= signed_type(1) << 61) {
    sticky = sticky || value[0] != 0;
    value >>= 1;
    shift++;
  }
  int64_t top = value.to_int64();
  F out = (F)::ldexp((F)(sticky ? (top | 1) : top), shift);
  return negative ? -out : out;
}

} // namespace flexllm

#endif
