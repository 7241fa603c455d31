"""C = alpha A B + beta C, A symmetric with its lower triangle stored."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N = 6, 7


def symm(A: float32[M, M], B: float32[M, N], C: float32[M, N]):
    for i, j in allo.grid(M, N, name="cell"):
        temp: float32 = 0
        for k in range(i):
            C[k, j] += 1.5 * B[i, j] * A[i, k]
            temp += B[k, j] * A[i, k]
        C[i, j] = 0.5 * C[i, j] + 1.5 * B[i, j] * A[i, i] + 1.5 * temp


def check():
    s = allo.customize(symm)
    s.pipeline("k", initiation_interval=3)
    A, B, C = (np.random.rand(*x).astype(np.float32) for x in ((M, M), (M, N), (M, N)))
    full = np.tril(A) + np.tril(A, -1).T
    want = 1.5 * full @ B + 0.5 * C
    s.build()(A, B, C)
    np.testing.assert_allclose(C, want, rtol=1e-4)
