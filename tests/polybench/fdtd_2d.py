"""Finite differences in time, two dimensions."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

NX, NY, TMAX = 6, 7, 3


def fdtd_2d(ex: float32[NX, NY], ey: float32[NX, NY], hz: float32[NX, NY], fict: float32[TMAX]):
    for t in range(TMAX, name="time"):
        for j in range(NY, name="source"):
            ey[0, j] = fict[t]
        for i, j in allo.grid(NX - 1, NY, name="ey"):
            ey[i + 1, j] = ey[i + 1, j] - 0.5 * (hz[i + 1, j] - hz[i, j])
        for i, j in allo.grid(NX, NY - 1, name="ex"):
            ex[i, j + 1] = ex[i, j + 1] - 0.5 * (hz[i, j + 1] - hz[i, j])
        for i, j in allo.grid(NX - 1, NY - 1, name="hz"):
            hz[i, j] = hz[i, j] - 0.7 * (ex[i, j + 1] - ex[i, j] + ey[i + 1, j] - ey[i, j])


def check():
    s = allo.customize(fdtd_2d)
    s.partition(s.hz, dim=2, partition_type=allo.Partition.Block, factor=7)
    ex, ey, hz = (np.random.rand(NX, NY).astype(np.float32) for _ in range(3))
    fict = np.arange(TMAX, dtype=np.float32)
    a, b, c = ex.copy(), ey.copy(), hz.copy()
    for t in range(TMAX):
        b[0] = fict[t]
        b[1:] -= np.float32(0.5) * (c[1:] - c[:-1])
        a[:, 1:] -= np.float32(0.5) * (c[:, 1:] - c[:, :-1])
        c[:-1, :-1] -= np.float32(0.7) * (a[:-1, 1:] - a[:-1, :-1] + b[1:, :-1] - b[:-1, :-1])
    s.build()(ex, ey, hz, fict)
    for got, want in ((ex, a), (ey, b), (hz, c)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
