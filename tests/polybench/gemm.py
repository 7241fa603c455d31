"""C = alpha A B + beta C."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N, K = 8, 10, 12


def mm(A: float32[M, K], B: float32[K, N]) -> float32[M, N]:
    AB: float32[M, N] = 0
    for i, j in allo.grid(M, N, name="mac"):
        for k in allo.reduction(K):
            AB[i, j] += A[i, k] * B[k, j]
    return AB


def scale_add(AB: float32[M, N], C: float32[M, N]) -> float32[M, N]:
    out: float32[M, N] = 0
    for i, j in allo.grid(M, N, name="out"):
        out[i, j] = 1.5 * AB[i, j] + 0.5 * C[i, j]
    return out


def gemm(A: float32[M, K], B: float32[K, N], C: float32[M, N]) -> float32[M, N]:
    AB = mm(A, B)
    return scale_add(AB, C)


def check():
    s_mm = allo.customize(mm)
    s_mm.reorder("k", "j")
    s_mm.buffer_at(s_mm.AB, axis="i")
    s_mm.pipeline("j")
    s_out = allo.customize(scale_add)
    s_out.pipeline("j")
    s_out.partition(s_out.C, dim=2)
    s = allo.customize(gemm)
    s.compose(s_mm)
    s.compose(s_out)
    A, B, C = (np.random.rand(*x).astype(np.float32) for x in ((M, K), (K, N), (M, N)))
    np.testing.assert_allclose(s.build()(A, B, C), 1.5 * A @ B + 0.5 * C, rtol=1e-5)
    assert "pipeline II=1" in str(s.build(target="vhls"))
