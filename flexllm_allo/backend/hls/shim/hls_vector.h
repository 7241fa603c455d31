// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for Vitis' short vector.
#ifndef FLEXLLM_SHIM_HLS_VECTOR_H
#define FLEXLLM_SHIM_HLS_VECTOR_H

#include <array>
#include <cstddef>

namespace hls {

template <typename T, std::size_t N>
class vector : public std::array<T, N> {
public:
  vector() = default;
  explicit vector(const T &value) { this->fill(value); }
};

} // namespace hls

#endif
