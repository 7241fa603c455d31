"""A = L U in place, without pivoting."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64

N = 8


def lu(A: float64[N, N]):
    for i in range(N):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[k, j]
            A[i, j] /= A[j, j]
        for j in range(i, N):
            for k in range(i):
                A[i, j] -= A[i, k] * A[k, j]


def check():
    s = allo.customize(lu)
    A = np.random.rand(N, N) + N * np.eye(N)
    got = A.copy()
    s.build()(got)
    lower, upper = np.tril(got, -1) + np.eye(N), np.triu(got)
    np.testing.assert_allclose(lower @ upper, A, rtol=1e-10)
