"""A = Q R by modified Gram-Schmidt."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N = 8, 6


def gramschmidt(A: float32[M, N], Q: float32[M, N], R: float32[N, N]):
    for k in range(N):
        norm: float32 = 0
        for i in range(M):
            norm += A[i, k] * A[i, k]
        R[k, k] = allo.sqrt(norm)
        for i in range(M):
            Q[i, k] = A[i, k] / R[k, k]
        for j in range(k + 1, N):
            R[k, j] = 0
            for i in range(M):
                R[k, j] += Q[i, k] * A[i, j]
            for i in range(M):
                A[i, j] -= Q[i, k] * R[k, j]


def check():
    s = allo.customize(gramschmidt)
    A = np.random.rand(M, N).astype(np.float32)
    Q, R = np.zeros((M, N), np.float32), np.zeros((N, N), np.float32)
    s.build()(A.copy(), Q, R)
    np.testing.assert_allclose(Q @ R, A, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(Q.T @ Q, np.eye(N), atol=1e-4)
