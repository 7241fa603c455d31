"""Three-point averaging, T times, between two arrays."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N, TSTEPS = 16, 4


def compute_A(A: float32[N], B: float32[N]):
    for i in range(1, N - 1):
        B[i] = 0.33333 * (A[i - 1] + A[i] + A[i + 1])


def jacobi_1d(A: float32[N], B: float32[N]):
    for t in range(TSTEPS):
        compute_A(A, B)
        compute_A(B, A)


def check():
    s = allo.customize(jacobi_1d)
    part = allo.customize(compute_A)
    part.pipeline("i")
    part.partition(part.A, partition_type=2, dim=1, factor=2)
    s.compose(part)
    A = np.random.rand(N).astype(np.float32)
    want = [A.copy(), A.copy()]
    for _ in range(TSTEPS):
        for src, dst in ((0, 1), (1, 0)):
            want[dst][1:-1] = 0.33333 * (want[src][:-2] + want[src][1:-1] + want[src][2:])
    B = A.copy()
    s.build()(A, B)
    np.testing.assert_allclose(A, want[0], rtol=1e-5)
    np.testing.assert_allclose(B, want[1], rtol=1e-5)
