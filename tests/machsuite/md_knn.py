"""Lennard-Jones forces between each atom and its nearest neighbours."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64, int32

ATOMS, NEAR = 16, 5
LJ1, LJ2 = 1.5, 2.0


def md(
    fx: float64[ATOMS], fy: float64[ATOMS], fz: float64[ATOMS],
    x: float64[ATOMS], y: float64[ATOMS], z: float64[ATOMS], near: int32[ATOMS, NEAR],
):  # fmt: skip
    for i in range(ATOMS, name="atom"):
        ax: float64 = 0
        ay: float64 = 0
        az: float64 = 0
        for n in range(NEAR, name="neighbour"):
            j: int32 = near[i, n]
            dx: float64 = x[i] - x[j]
            dy: float64 = y[i] - y[j]
            dz: float64 = z[i] - z[j]
            r2: float64 = 1.0 / (dx * dx + dy * dy + dz * dz)
            r6: float64 = r2 * r2 * r2
            force: float64 = r2 * (r6 * (LJ1 * r6 - LJ2))
            ax += dx * force
            ay += dy * force
            az += dz * force
        fx[i] = ax
        fy[i] = ay
        fz[i] = az


def check():
    s = allo.customize(md)
    s.pipeline("n")
    p = np.random.rand(3, ATOMS) * 10
    near = np.argsort(((p[:, :, None] - p[:, None]) ** 2).sum(0))[:, 1 : NEAR + 1].astype(np.int32)
    f = np.zeros((3, ATOMS))
    s.build()(f[0], f[1], f[2], p[0], p[1], p[2], near)
    d = p[:, :, None] - p[:, near]
    r2 = 1 / (d**2).sum(0)
    np.testing.assert_allclose(f, (d * (r2 * r2**3 * (LJ1 * r2**3 - LJ2))).sum(-1), rtol=1e-9)
