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

/// linear[M=8, T=int8], linear.py:12
void linear(
  int8_t X[8][4],
  int8_t W[16][4],
  int32_t Y[8][16]
) {
  #pragma HLS array_partition variable=X complete dim=2

  l_gemm_m: for (int m = 0; m < 8; m++) {
    l_n: for (int n = 0; n < 16; n++) {
    #pragma HLS pipeline II=1
      int32_t acc = 0;
      l_k: for (int k = 0; k < 4; k++) {
      #pragma HLS unroll
        acc = (int64_t)acc + X[m][k] * W[n][k];
      }
      Y[m][n] = acc;
    }
  }
}

/// two_layers
/// This is top function.
void two_layers(
  int8_t X[8][4],
  int8_t W[2][16][4],
  int32_t layer,
  int32_t Y[8][16],
  int32_t *first
) {
  int8_t XB[8][4];
  #pragma HLS array_partition variable=XB complete dim=2

  l_load_i: for (int i = 0; i < 8; i++) {
    l_j: for (int j = 0; j < 4; j++) {
    #pragma HLS pipeline II=1
      XB[i][j] = X[i][j];
    }
  }
  int32_t YB[8][16];
  #pragma HLS bind_storage variable=YB type=ram_2p impl=uram

  linear(XB, W[layer], YB);
  linear(XB, W[1], Y);
  *first = YB[0][0];
}
