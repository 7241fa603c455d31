"""Forward substitution L x = b."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 9


def trisolv(L: float32[N, N], b: float32[N]) -> float32[N]:
    x: float32[N] = 0
    for i in range(N):
        x[i] = b[i]
        for j in range(i):
            x[i] -= L[i, j] * x[j]
        x[i] = x[i] / L[i, i]
    return x


def check():
    s = allo.customize(trisolv)
    s.pipeline("j")
    L = (np.tril(np.random.rand(N, N)) + N * np.eye(N)).astype(np.float32)
    b = np.random.rand(N).astype(np.float32)
    np.testing.assert_allclose(s.build()(L, b), np.linalg.solve(L, b), rtol=1e-4)
