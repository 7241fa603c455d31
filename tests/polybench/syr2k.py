"""The lower triangle of C = alpha (A B^T + B A^T) + beta C."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N, M = 6, 5


def syr2k(A: float32[N, M], B: float32[N, M], C: float32[N, N]) -> float32[N, N]:
    D: float32[N, N] = 0.0
    for i, j in allo.grid(N, N):
        if j <= i:
            total: float32 = 0.0
            for k in range(M):
                total += A[i, k] * B[j, k] + B[i, k] * A[j, k]
            D[i, j] = 1.5 * total + 0.5 * C[i, j]
        else:
            D[i, j] = C[i, j]
    return D


def check():
    s = allo.customize(syr2k)
    s.pipeline("k")
    A, B = np.random.rand(2, N, M).astype(np.float32)
    C = np.random.rand(N, N).astype(np.float32)
    want = np.where(np.tri(N) > 0, 1.5 * (A @ B.T + B @ A.T) + 0.5 * C, C)
    np.testing.assert_allclose(s.build()(A, B, C), want, rtol=1e-5)
