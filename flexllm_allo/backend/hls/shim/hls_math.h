// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for Vitis' header: the functions are the C library's.
#ifndef FLEXLLM_SHIM_HLS_MATH_H
#define FLEXLLM_SHIM_HLS_MATH_H

#include <hls_half.h>
#include <math.h>

#include <cmath>

namespace hls {
using std::abs;
using std::ceil;
using std::cos;
using std::exp;
using std::exp2;
using std::floor;
using std::log;
using std::log10;
using std::log2;
using std::pow;
using std::round;
using std::sin;
using std::sqrt;
using std::tan;
using std::tanh;
} // namespace hls

#endif
