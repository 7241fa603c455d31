"""The lower triangle of C = alpha A A^T + beta C."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N, M = 8, 6


def syrk(A: float32[N, M], C: float32[N, N]):
    for i in range(N, name="row"):
        for j in range(i + 1, name="scale"):
            C[i, j] *= 0.5
        for k in range(M, name="mac"):
            for jj in range(i + 1):
                C[i, jj] += 1.5 * A[i, k] * A[jj, k]


def check():
    s = allo.customize(syrk)
    s.pipeline("jj")
    s.partition(s.A, dim=1, partition_type=2, factor=4)
    A, C = np.random.rand(N, M).astype(np.float32), np.random.rand(N, N).astype(np.float32)
    want = np.where(np.tri(N) > 0, 1.5 * A @ A.T + 0.5 * C, C)
    s.build()(A, C)
    np.testing.assert_allclose(C, want, rtol=1e-5)
