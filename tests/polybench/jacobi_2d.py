"""Five-point averaging, T times."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N, TSTEPS = 8, 3


def jacobi_2d(A: float32[N, N], B: float32[N, N]):
    for t in range(TSTEPS):
        for i0, j0 in allo.grid(N - 2, N - 2, name="A"):
            B[i0 + 1, j0 + 1] = 0.2 * (
                A[i0 + 1, j0 + 1] + A[i0 + 1, j0] + A[i0 + 1, j0 + 2] + A[i0 + 2, j0 + 1] + A[i0, j0 + 1]
            )
        for i1, j1 in allo.grid(N - 2, N - 2, name="B"):
            A[i1 + 1, j1 + 1] = 0.2 * (
                B[i1 + 1, j1 + 1] + B[i1 + 1, j1] + B[i1 + 1, j1 + 2] + B[i1 + 2, j1 + 1] + B[i1, j1 + 1]
            )


def step(x, y):
    y[1:-1, 1:-1] = 0.2 * (x[1:-1, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] + x[2:, 1:-1] + x[:-2, 1:-1])


def check():
    s = allo.customize(jacobi_2d)
    s.pipeline("j0")
    s.pipeline("j1")
    s.partition(s.A, dim=1)
    A, B = np.random.rand(2, N, N).astype(np.float32)
    a, b = A.copy(), B.copy()
    for _ in range(TSTEPS):
        step(a, b)
        step(b, a)
    A, B = A.copy(), B.copy()
    s.build()(A, B)
    np.testing.assert_allclose(A, a, rtol=1e-5)
