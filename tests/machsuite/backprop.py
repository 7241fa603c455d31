"""One step of training a two-layer perceptron."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64

I, H, O = 5, 4, 3
RATE = 0.1


def activate(x: float64) -> float64:
    y: float64 = 1.0 / (1.0 + allo.exp(-x))
    return y


def layer1(W: float64[I, H], b: float64[H], x: float64[I]) -> float64[H]:
    y: float64[H]
    for j in range(H):
        total: float64 = b[j]
        for i in range(I):
            total += W[i, j] * x[i]
        y[j] = activate(total)
    return y


def layer2(W: float64[H, O], b: float64[O], x: float64[H]) -> float64[O]:
    y: float64[O]
    for j in range(O):
        total: float64 = b[j]
        for i in range(H):
            total += W[i, j] * x[i]
        y[j] = activate(total)
    return y


def step(
    W1: float64[I, H], b1: float64[H], W2: float64[H, O], b2: float64[O], x: float64[I], want: float64[O]
) -> float64[O]:
    h = layer1(W1, b1, x)
    y = layer2(W2, b2, h)
    dy: float64[O]
    dh: float64[H] = 0.0
    for o in range(O, name="output_error"):
        dy[o] = (y[o] - want[o]) * y[o] * (1.0 - y[o])
    for i, o in allo.grid(H, O, name="hidden_error"):
        dh[i] += dy[o] * W2[i, o]
    for i in range(H, name="through"):
        dh[i] *= h[i] * (1.0 - h[i])
    for i, o in allo.grid(H, O, name="update2"):
        W2[i, o] -= RATE * dy[o] * h[i]
    for i, j in allo.grid(I, H, name="update1"):
        W1[i, j] -= RATE * dh[j] * x[i]
    for o in range(O):
        b2[o] -= RATE * dy[o]
    for j in range(H):
        b1[j] -= RATE * dh[j]
    return y


def check():
    s = allo.customize(step)
    update = s.get_loops()["update1"]
    s.pipeline(update.j)
    s.unroll(s.get_loops()["update2"]["o"])
    W1, b1, W2, b2, x, want = (np.random.rand(*n) for n in ((I, H), (H,), (H, O), (O,), (I,), (O,)))
    w1, c1, w2, c2 = W1.copy(), b1.copy(), W2.copy(), b2.copy()
    y = s.build()(W1, b1, W2, b2, x, want)
    h = 1 / (1 + np.exp(-(w1.T @ x + c1)))
    o = 1 / (1 + np.exp(-(w2.T @ h + c2)))
    dy = (o - want) * o * (1 - o)
    dh = (w2 @ dy) * h * (1 - h)
    np.testing.assert_allclose(y, o)
    np.testing.assert_allclose(W1, w1 - RATE * np.outer(x, dh))
    np.testing.assert_allclose(W2, w2 - RATE * np.outer(h, dy))
    np.testing.assert_allclose(b1, c1 - RATE * dh)
