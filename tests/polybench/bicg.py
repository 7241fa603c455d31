"""s = A^T r and q = A p, in one pass over A."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N = 6, 8


def bicg(A: float32[N, M], p: float32[M], r: float32[N]) -> (float32[M], float32[N]):
    s_out: float32[M] = 0
    q_out: float32[N] = 0
    for i in range(N):
        ri: float32 = r[i]
        for j in range(M):
            s_out[j] += A[i, j] * ri
            q_out[i] += A[i, j] * p[j]
    return s_out, q_out


def check():
    s = allo.customize(bicg)
    s.pipeline("j", initiation_interval=4)
    s.partition(s.A, dim=2)
    A, p, r = np.random.rand(N, M).astype("f"), np.random.rand(M).astype("f"), np.random.rand(N).astype("f")
    s_out, q_out = s.build()(A, p, r)
    np.testing.assert_allclose(s_out, A.T @ r, rtol=1e-5)
    np.testing.assert_allclose(q_out, A @ p, rtol=1e-5)
