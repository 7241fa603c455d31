"""B = alpha A^T B with A unit lower triangular, in place."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N = 7, 5


def trmm(A: float32[M, M], B: float32[M, N]):
    for i, j in allo.grid(M, N, name="row"):
        for k in range(i + 1, M):
            B[i, j] += A[k, i] * B[k, j]
        B[i, j] = 1.5 * B[i, j]


def check():
    s = allo.customize(trmm)
    s.pipeline("k")
    A, B = np.random.rand(M, M).astype(np.float32), np.random.rand(M, N).astype(np.float32)
    lower = np.tril(A, -1) + np.eye(M)
    want = 1.5 * lower.T @ B
    s.build()(A, B)
    np.testing.assert_allclose(B, want, rtol=1e-4)
