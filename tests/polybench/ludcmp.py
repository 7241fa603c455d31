"""Solve A x = b by LU decomposition."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 7


def ludcmp(A: float32[N, N], b: float32[N], x: float32[N]):
    y: float32[N] = 0
    for i in range(N, name="decompose"):
        for j in range(i, name="lower"):
            w: float32 = A[i, j]
            for k in range(j):
                w -= A[i, k] * A[k, j]
            A[i, j] = w / A[j, j]
        for j in range(i, N, name="upper"):
            w: float32 = A[i, j]
            for k in range(i):
                w -= A[i, k] * A[k, j]
            A[i, j] = w
    for i in range(N, name="forward"):
        w: float32 = b[i]
        for j in range(i):
            w -= A[i, j] * y[j]
        y[i] = w
    for r in range(N, name="backward"):
        w: float32 = y[N - 1 - r]
        for j in range(N - r, N):
            w -= A[N - 1 - r, j] * x[j]
        x[N - 1 - r] = w / A[N - 1 - r, N - 1 - r]


def check():
    s = allo.customize(ludcmp)
    A = (np.random.rand(N, N) + N * np.eye(N)).astype(np.float32)
    b, x = np.random.rand(N).astype(np.float32), np.zeros(N, np.float32)
    s.build()(A.copy(), b, x)
    np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-4)
