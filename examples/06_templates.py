"""Lesson 6: one kernel for many types and sizes.

You learn template parameters as Python 3.11 can write them (3.12: ``def gemm[Ty, M](...)``), and `meta_if`.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int8, int32

Ty, To, M, N, K = allo.params("Ty, To, M, N, K")


@allo.template(Ty, To, M, N, K)
def gemm(A: Ty[M, K], B: Ty[K, N]) -> To[M, N]:
    C: To[M, N] = 0
    for i, j, k in allo.grid(M, N, K):
        C[i, j] += A[i, k] * B[k, j]
    return C


@allo.template(Ty, N)
def activate(X: Ty[N]) -> Ty[N]:
    Y: Ty[N]
    for i in range(N):
        with allo.meta_if(Ty == float32):  # one of the two remains
            Y[i] = X[i] / (1.0 + allo.exp(-X[i]))
        with allo.meta_else():
            Y[i] = X[i] if X[i] > 0 else 0
    return Y


def two_sizes(A: int8[4, 8], B: int8[8, 4], D: int32[4, 2]) -> int32[4, 2]:
    C: int32[4, 4] = gemm[int8, int32, 4, 4, 8](A, B)
    return gemm[int32, int32, 4, 2, 4](C, D)  # another instance, a function of its own


a, b = np.ones((2, 3), np.float32), np.full((3, 2), 2, np.float32)
by_order = allo.customize(gemm, instantiate=[float32, float32, 2, 2, 3]).build()
np.testing.assert_array_equal(by_order(a, b), a @ b)
relu = allo.customize(activate, instantiate={"Ty": int32, "N": 4}).build()  # by name
np.testing.assert_array_equal(relu(np.arange(-2, 2, dtype=np.int32)), [0, 0, 0, 1])

s = allo.customize(two_sizes)
assert len(s.instances("gemm")) == 2
out = s.build()(np.ones((4, 8), np.int8), np.ones((8, 4), np.int8), np.ones((4, 2), np.int32))
np.testing.assert_array_equal(out, np.full((4, 2), 32))
