"""Sparse matrix times vector, compressed rows."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int32

N, NNZ = 8, 20


def spmv(val: float32[NNZ], cols: int32[NNZ], row: int32[N + 1], vec: float32[N]) -> float32[N]:
    out: float32[N] = 0.0
    for i in range(N):
        start: int32 = row[i]
        stop: int32 = row[i + 1]
        total: float32 = 0.0
        for j in range(start, stop):
            total += val[j] * vec[cols[j]]
        out[i] = total
    return out


def check():
    s = allo.customize(spmv)
    s.pipeline("j")
    rng = np.random.default_rng(3)
    dense = np.zeros(N * N, np.float32)
    dense[rng.choice(N * N, NNZ, replace=False)] = rng.random(NNZ) + 0.1
    dense = dense.reshape(N, N)
    rows, cols = np.nonzero(dense)
    row = np.searchsorted(rows, np.arange(N + 1)).astype(np.int32)
    vec = rng.random(N).astype(np.float32)
    out = s.build()(dense[rows, cols], cols.astype(np.int32), row, vec)
    np.testing.assert_allclose(out, dense @ vec, rtol=1e-5)
