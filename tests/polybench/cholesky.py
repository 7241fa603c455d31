"""A = L L^T, L in the lower triangle."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 8


def cholesky(A: float32[N, N]):
    for i in range(N):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[j, k]
            A[i, j] /= A[j, j]
        for l in range(i):
            A[i, i] -= A[i, l] * A[i, l]
        v: float32 = A[i, i]
        A[i, i] = allo.sqrt(v)


def check():
    s = allo.customize(cholesky)
    s.pipeline("k")
    s.pipeline("l")
    X = np.random.rand(N, N)
    A = (X @ X.T + N * np.eye(N)).astype(np.float32)
    got = A.copy()
    s.build()(got)
    np.testing.assert_allclose(np.tril(got), np.linalg.cholesky(A), rtol=1e-4)
