"""Lesson 5: a mesh of kernels that pass values to their neighbours: a systolic array.

You learn regions, kernels with a mapping, process ids and arrays of streams.
"""

import numpy as np

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.ir.types import Stream, int16, int32

M, N, K = 4, 4, 8


@df.region()
def array(A: int16[M, K], B: int16[K, N], C: int32[M, N]):
    right: Stream[int16, 4][M, N]  # A flows to the right
    down: Stream[int16, 4][M, N]  # B flows down

    @df.kernel(mapping=[M, N], args=[A, B, C])
    def element(a: int16[M, K], b: int16[K, N], c: int32[M, N]):
        i, j = df.get_pid()
        total: int32 = 0
        for k in range(K):
            x: int16 = 0
            y: int16 = 0
            with allo.meta_if(j == 0):  # decided for each element when it is compiled
                x = a[i, k]
            with allo.meta_else():
                x = right[i, j].get()
            with allo.meta_if(i == 0):
                y = b[k, j]
            with allo.meta_else():
                y = down[i, j].get()
            total += x * y
            with allo.meta_if(j < N - 1):
                right[i, j + 1].put(x)
            with allo.meta_if(i < M - 1):
                down[i + 1, j].put(y)
        c[i, j] = total


A, B = np.arange(M * K, dtype=np.int16).reshape(M, K), np.full((K, N), -3, np.int16)
C = np.zeros((M, N), np.int32)
df.build(array, target="simulator")(A, B, C)
np.testing.assert_array_equal(C, A.astype(np.int32) @ B)
