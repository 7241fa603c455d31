"""Lesson 10: from a schedule to HLS C++ and a Vitis project, and its C simulation without Vitis.

You learn that the text follows the schedule, and that the compiled C++ gives the same bits as the CPU.
"""

import tempfile
from pathlib import Path

import numpy as np

import flexllm_allo as allo
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.ir.types import Int, int8, int32

M, N, K = 8, 16, 32


def gemm(A: int8[M, K], B: Int(4)[K, N]) -> int32[M, N]:
    C: int32[M, N] = 0
    for i, j, k in allo.grid(M, N, K):
        C[i, j] += A[i, k] * B[k, j]
    return C


s = allo.customize(gemm)
s.reorder("k", "j")
s.buffer_at(s.C, "i")
s.unroll("j", factor=4)
s.pipeline("k")
s.partition(s.B, dim=2, partition_type=allo.Partition.Cyclic, factor=4)

code = s.build(target="vhls").hls_code
print(code)
assert "#pragma HLS pipeline II=1" in code
assert "#pragma HLS array_partition variable=B cyclic dim=2 factor=4" in code

A, B = np.arange(M * K).reshape(M, K).astype(np.int8), np.full((K, N), -8, np.int8)
try:
    find_compiler()
    find_ap_headers()
except allo.FlexError as error:
    print(error)  # the text and the project need no tools, C simulation needs g++ and the ap_int headers
else:
    with tempfile.TemporaryDirectory() as folder:
        module = s.build(target="vitis_hls", mode="csim", project=Path(folder) / "gemm.prj")
        C = np.zeros((M, N), np.int32)
        module(A, B, C)
        np.testing.assert_array_equal(C, s.build()(A, B))
