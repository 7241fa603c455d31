"""Sparse matrix times vector, ELLPACK."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64, int32

N, L = 10, 3


def ellpack(nzval: float64[N, L], cols: int32[N, L], vec: float64[N]) -> float64[N]:
    out: float64[N] = 0
    for i in allo.grid(N, name="row"):
        for j in allo.reduction(L, name="dot"):
            out[i] += nzval[i, j] * vec[cols[i, j]]
    return out


def check():
    s = allo.customize(ellpack)
    s.unroll("j")
    s.pipeline("i")
    s.partition(s.nzval, dim=2)
    val, vec = np.random.rand(N, L), np.random.rand(N)
    cols = np.random.randint(0, N, (N, L)).astype(np.int32)
    np.testing.assert_allclose(s.build()(val, cols, vec), (val * vec[cols]).sum(1))
