"""A[r, q, :] = A[r, q, :] C4."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

R, Q, P = 4, 5, 6


def doitgen(A: float32[R, Q, P], C4: float32[P, P]):
    for r, q in allo.grid(R, Q, name="vector"):
        total: float32[P] = 0
        for p, s in allo.grid(P, P, name="mac"):
            total[p] += A[r, q, s] * C4[s, p]
        for p1 in range(P, name="back"):
            A[r, q, p1] = total[p1]


def check():
    s = allo.customize(doitgen)
    s.reorder("s", "p")
    s.pipeline("p")
    s.partition(s.C4, dim=2)
    A, C4 = np.random.rand(R, Q, P).astype(np.float32), np.random.rand(P, P).astype(np.float32)
    want = A @ C4
    s.build()(A, C4)
    np.testing.assert_allclose(A, want, rtol=1e-5)
