"""Levinson-Durbin recursion: solve the Toeplitz system T(r) y = -r."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64

N = 8


def durbin(r: float64[N], y: float64[N]):
    z: float64[N] = 0
    y[0] = -r[0]
    beta: float64 = 1.0
    alpha: float64 = -r[0]
    for k in range(1, N):
        beta = (1.0 - alpha * alpha) * beta
        total: float64 = 0.0
        for i in range(k):
            total += r[k - i - 1] * y[i]
        alpha = -(r[k] + total) / beta
        for i in range(k):
            z[i] = y[i] + alpha * y[k - i - 1]
        for i in range(k):
            y[i] = z[i]
        y[k] = alpha


def check():
    s = allo.customize(durbin)
    r = np.random.rand(N) / N
    y = np.zeros(N)
    s.build()(r, y)
    first = np.concatenate([[1.0], r[:-1]])
    toeplitz = np.array([[first[abs(i - j)] for j in range(N)] for i in range(N)])
    np.testing.assert_allclose(toeplitz @ y, -r, rtol=1e-9)
