"""Deriche's recursive edge filter: two recursive passes along rows, two along columns."""

import math

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int32

W, H = 8, 6
alpha = 0.25
k = (1 - math.exp(-alpha)) ** 2 / (1 + 2 * alpha * math.exp(-alpha) - math.exp(2 * alpha))
a1 = k
a2 = k * math.exp(-alpha) * (alpha - 1)
a3 = k * math.exp(-alpha) * (alpha + 1)
a4 = -k * math.exp(-2 * alpha)
b1 = 2 ** (-alpha)
b2 = -math.exp(-2 * alpha)


def rows(img: float32[W, H], y: float32[W, H]):
    for i in range(W):
        ym1: float32 = 0
        ym2: float32 = 0
        xm1: float32 = 0
        for j in range(H):
            y[i, j] = a1 * img[i, j] + a2 * xm1 + b1 * ym1 + b2 * ym2
            xm1 = img[i, j]
            ym2 = ym1
            ym1 = y[i, j]


def rows_back(img: float32[W, H], y: float32[W, H]):
    for i in range(W):
        yp1: float32 = 0
        yp2: float32 = 0
        xp1: float32 = 0
        xp2: float32 = 0
        for j in range(H):
            r: int32 = H - 1 - j
            y[i, r] = a3 * xp1 + a4 * xp2 + b1 * yp1 + b2 * yp2
            xp2 = xp1
            xp1 = img[i, r]
            yp2 = yp1
            yp1 = y[i, r]


def deriche(img: float32[W, H]) -> float32[W, H]:
    y1: float32[W, H]
    y2: float32[W, H]
    out: float32[W, H]
    rows(img, y1)
    rows_back(img, y2)
    for i, j in allo.grid(W, H, name="sum"):
        out[i, j] = y1[i, j] + y2[i, j]
    return out


def check():
    s = allo.customize(deriche)
    s.pipeline("rows:j", initiation_interval=8)
    img = np.random.rand(W, H).astype(np.float32)
    y1, y2 = np.zeros((W, H)), np.zeros((W, H))
    rows(img, y1)
    rows_back(img, y2)
    np.testing.assert_allclose(s.build()(img), y1 + y2, rtol=1e-4, atol=1e-5)
