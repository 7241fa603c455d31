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
#include "flexllm_ap.h"
using namespace std;

extern "C" {

/// produce
void produce(
  ap_fixed<12, 8> *A,
  hls::stream< ap_fixed<12, 8> > pipe[2]
) {
  l_p_i_outer: for (int i_outer = 0; i_outer < 4; i_outer++) {
    l_i_inner: for (int i_inner = 0; i_inner < 4; i_inner++) {
    #pragma HLS pipeline II=2 rewind
      pipe[i_inner % 2].write(A[i_outer * 4 + i_inner]);
    }
  }
}

/// consume
void consume(
  hls::stream< ap_fixed<12, 8> > pipe[2],
  ap_fixed<16, 8> *B
) {
  l_c_i: for (int i = 0; i < 16; i++) {
    ap_fixed<12, 8> t = pipe[i % 2].read();
    B[i] = flexllm::from_raw<ap_fixed<16, 8> >((int16_t)((flexllm::raw(t) + flexllm::raw(t)) << 4));
  }
}

/// top
/// This is top function.
void top(
  ap_fixed<12, 8> *A,
  ap_fixed<16, 8> *B
) {
  #pragma HLS interface m_axi port=A offset=slave bundle=gmem0
  #pragma HLS interface m_axi port=B offset=slave bundle=gmem1
  #pragma HLS interface s_axilite port=return
  #pragma HLS dataflow
  hls::stream< ap_fixed<12, 8> > pipe[2];
  #pragma HLS stream variable=pipe depth=4

  produce(A, pipe);
  consume(pipe, B);
}

} // extern "C"
