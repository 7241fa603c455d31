"""Nine-point Gauss-Seidel sweeps, in place."""

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N, TSTEPS = 8, 2


def seidel_2d(A: float32[N, N]):
    for t, i, j in allo.grid(TSTEPS, N - 2, N - 2, name="sweep"):
        A[i + 1, j + 1] = (
            A[i, j] + A[i, j + 1] + A[i, j + 2]
            + A[i + 1, j] + A[i + 1, j + 1] + A[i + 1, j + 2]
            + A[i + 2, j] + A[i + 2, j + 1] + A[i + 2, j + 2]
        ) / 9.0  # fmt: skip


def check():
    s = allo.customize(seidel_2d)
    s.pipeline("j", initiation_interval=30)
    A = np.random.rand(N, N).astype(np.float32)
    want = A.astype(np.float64)
    for _ in range(TSTEPS):
        for i in range(1, N - 1):
            for j in range(1, N - 1):
                want[i, j] = want[i - 1 : i + 2, j - 1 : j + 2].sum() / 9
    s.build()(A)
    np.testing.assert_allclose(A, want, rtol=1e-5)
    with pytest.raises(allo.FlexError, match=r"A\[i"):  # names the accesses that would meet in another order
        s.reorder("j", "i")
