"""Lesson 1: a kernel is a typed Python function, a schedule says how it runs.

You learn to write a kernel, to turn it into a `Schedule`, to look at the program, and to run it on the CPU.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int8, int32

M, N, K = 32, 32, 64


def gemm(A: int8[M, K], B: int8[K, N]) -> int32[M, N]:
    C: int32[M, N] = 0  # local arrays are declared by annotation; `= 0` fills
    for i, j, k in allo.grid(M, N, K):
        C[i, j] += A[i, k] * B[k, j]  # int8 * int8 is int16: sums are taken in a type that holds them
    return C


s = allo.customize(gemm)
print(s)  # the program as Python; the loops form the band "S_i_j_k_0"

s.reorder("k", "j")  # now i, k, j: j is innermost and walks along the rows
s.buffer_at(s.C, "i")  # a row of C is kept on the chip while it is summed
s.pipeline("j")  # and the pipeline starts a new j every cycle
print(s)  # the same program after three primitives
print(s.trace)  # they are recorded, as a function that applies them again

rng = np.random.default_rng(0)
A = rng.integers(-128, 128, (M, K)).astype(np.int8)
B = rng.integers(-128, 128, (K, N)).astype(np.int8)
module = s.build()  # machine code, by LLVM
np.testing.assert_array_equal(module(A, B), A.astype(np.int32) @ B)
