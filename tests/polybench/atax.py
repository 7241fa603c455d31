"""y = A^T (A x)."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32


def atax(M, N):
    def stage_M(A: float32[M, N], x: float32[N]) -> float32[M]:
        out: float32[M] = 0
        for m in allo.grid(M):
            for r in allo.reduction(N):
                out[m] += A[m, r] * x[r]
        return out

    def stage_N(A: float32[M, N], out_Ax: float32[M]) -> float32[N]:
        out: float32[N] = 0
        for n in allo.grid(N):
            for k in allo.reduction(M):
                out[n] += A[k, n] * out_Ax[k]
        return out

    def kernel(A: float32[M, N], x: float32[N], y: float32[N]):
        out_Ax = stage_M(A, x)
        result = stage_N(A, out_Ax)
        for i in range(N):
            y[i] = result[i]

    s = allo.customize(kernel)
    s_m = allo.customize(stage_M)
    s_m.buffer_at(s_m.out, axis="m")
    s_m.pipeline("r")
    s_n = allo.customize(stage_N)
    s_n.reorder("k", "n")
    s_n.pipeline("n")
    s.compose([s_m, s_n])
    return s


def check():
    A, x = np.random.rand(6, 9).astype(np.float32), np.random.rand(9).astype(np.float32)
    y = np.zeros(9, np.float32)
    atax(6, 9).build()(A, x, y)
    np.testing.assert_allclose(y, A.T @ (A @ x), rtol=1e-5)
