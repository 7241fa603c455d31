// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for Vitis' AXI4-Stream word with side channels.
#ifndef FLEXLLM_SHIM_AP_AXI_SDATA_H
#define FLEXLLM_SHIM_AP_AXI_SDATA_H

namespace hls {

template <typename T>
struct axis_data {
  T data;
  bool last;
};

} // namespace hls

#endif
