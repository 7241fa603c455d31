"""x1 += A y1, x2 += A^T y2."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 8


def mvt(A: float32[N, N], x1: float32[N], x2: float32[N], y1: float32[N], y2: float32[N]):
    for i0 in allo.grid(N, name="A"):
        for j0 in allo.reduction(N):
            x1[i0] += A[i0, j0] * y1[j0]
    for i1 in allo.grid(N, name="AT"):
        for j1 in allo.reduction(N):
            x2[i1] += A[j1, i1] * y2[j1]


def check():
    s = allo.customize(mvt)
    s.reorder("j1", "i1")
    s.pipeline("i1")
    s.split("j0", 4)
    s.unroll("j0.inner")
    A = np.random.rand(N, N).astype(np.float32)
    x1, x2, y1, y2 = np.random.rand(4, N).astype(np.float32)
    want1, want2 = x1 + A @ y1, x2 + A.T @ y2
    x1, x2 = x1.copy(), x2.copy()
    s.build()(A, x1, x2, y1, y2)
    np.testing.assert_allclose(x1, want1, rtol=1e-5)
    np.testing.assert_allclose(x2, want2, rtol=1e-5)
