"""Alternating direction implicit solver for heat diffusion (Peaceman-Rachford)."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64

N, TSTEPS = 6, 2
B1, B2, DT, DX = 2.0, 1.0, 1.0 / TSTEPS, 1.0 / N
mul1, mul2 = B1 * DT / (DX * DX), B2 * DT / (DX * DX)
a, b, c = -mul1 / 2, 1.0 + mul1, -mul1 / 2
d, e, f = -mul2 / 2, 1.0 + mul2, -mul2 / 2


def adi(u: float64[N, N], v: float64[N, N], p: float64[N, N], q: float64[N, N]):
    for t in range(TSTEPS):
        for i in range(1, N - 1):
            v[0, i] = 1.0
            p[i, 0] = 0.0
            q[i, 0] = v[0, i]
            for j in range(1, N - 1):
                p[i, j] = -c / (a * p[i, j - 1] + b)
                q[i, j] = (
                    -d * u[j, i - 1] + (1.0 + 2.0 * d) * u[j, i] - f * u[j, i + 1] - a * q[i, j - 1]
                ) / (a * p[i, j - 1] + b)
            v[N - 1, i] = 1.0
            for jr in range(1, N - 1):
                v[N - 1 - jr, i] = p[i, N - 1 - jr] * v[N - jr, i] + q[i, N - 1 - jr]
        for i in range(1, N - 1):
            u[i, 0] = 1.0
            p[i, 0] = 0.0
            q[i, 0] = u[i, 0]
            for j in range(1, N - 1):
                p[i, j] = -f / (d * p[i, j - 1] + e)
                q[i, j] = (
                    -a * v[i - 1, j] + (1.0 + 2.0 * a) * v[i, j] - c * v[i + 1, j] - d * q[i, j - 1]
                ) / (d * p[i, j - 1] + e)
            u[i, N - 1] = 1.0
            for jr in range(1, N - 1):
                u[i, N - 1 - jr] = p[i, N - 1 - jr] * u[i, N - jr] + q[i, N - 1 - jr]


def check():
    s = allo.customize(adi)
    given = [np.random.rand(N, N) for _ in range(4)]
    want = [x.copy() for x in given]
    adi(*want)  # a kernel runs as Python
    s.build()(*given)
    for got, w in zip(given, want, strict=True):
        np.testing.assert_allclose(got, w, rtol=1e-9)
