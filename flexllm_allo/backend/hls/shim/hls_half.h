// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for Vitis' 16-bit float: stored in 16 bits, computed as float.
#ifndef FLEXLLM_SHIM_HLS_HALF_H
#define FLEXLLM_SHIM_HLS_HALF_H

class half {
  _Float16 value_;

public:
  half() = default;
  half(float x) : value_((_Float16)x) {}
  half(double x) : value_((_Float16)x) {}
  half(int x) : value_((_Float16)x) {}
  operator float() const { return (float)value_; }
};

#endif
