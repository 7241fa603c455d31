"""Heat equation on a cube."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64

N, TSTEPS = 6, 2


def sweep(A: float64[N, N, N], B: float64[N, N, N]):
    const0: float64 = 0.125
    const1: float64 = 2.0
    for i, j, k in allo.grid(N - 2, N - 2, N - 2, name="cell"):
        B[i + 1, j + 1, k + 1] = (
            const0 * (A[i + 2, j + 1, k + 1] - const1 * A[i + 1, j + 1, k + 1] + A[i, j + 1, k + 1])
            + const0 * (A[i + 1, j + 2, k + 1] - const1 * A[i + 1, j + 1, k + 1] + A[i + 1, j, k + 1])
            + const0 * (A[i + 1, j + 1, k + 2] - const1 * A[i + 1, j + 1, k + 1] + A[i + 1, j + 1, k])
            + A[i + 1, j + 1, k + 1]
        )


def heat_3d(A: float64[N, N, N], B: float64[N, N, N]):
    for m in range(TSTEPS):
        sweep(A, B)
        sweep(B, A)


def numpy_sweep(a, b):
    c = a[1:-1, 1:-1, 1:-1]
    b[1:-1, 1:-1, 1:-1] = c + 0.125 * (
        (a[2:, 1:-1, 1:-1] - 2 * c + a[:-2, 1:-1, 1:-1])
        + (a[1:-1, 2:, 1:-1] - 2 * c + a[1:-1, :-2, 1:-1])
        + (a[1:-1, 1:-1, 2:] - 2 * c + a[1:-1, 1:-1, :-2])
    )


def check():
    part = allo.customize(sweep)
    part.fuse("i", "j")
    part.pipeline("k")
    s = allo.customize(heat_3d)
    s.compose(part)
    A, B = np.random.rand(N, N, N), np.random.rand(N, N, N)
    a, b = A.copy(), B.copy()
    for _ in range(TSTEPS):
        numpy_sweep(a, b)
        numpy_sweep(b, a)
    s.build()(A, B)
    np.testing.assert_allclose(A, a, rtol=1e-10)
