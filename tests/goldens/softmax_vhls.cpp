#include <algorithm>
#include <ap_axi_sdata.h>
#include <ap_fixed.h>
#include <ap_int.h>
#include <hls_math.h>
#include <hls_stream.h>
#include <hls_vector.h>
#include <math.h>
#include <stdint.h>
#include "flexllm_numerics.h"
using namespace std;

/// softmax
/// This is top function.
void softmax(
  float x[8],
  int32_t n
) {
  static const float scale[3] = {1.0f, 0.1f, 1.0e-07f};
  float best = (float)-INFINITY;
  l_max_i: for (int i = 0; i < n; i++) {
    best = std::max<float>(best, x[i]);
  }
  float total = 0.0f;
  l_sum_i: for (int i = 0; i < n; i++) {
    x[i] = flexllm::exp(x[i] - best) * scale[i % 3];
    total = total + x[i];
  }
  if (total > 0.0f) {
    l_div_i: for (int i = 0; i < n; i++) {
      x[i] = x[i] / total;
    }
  }
}
