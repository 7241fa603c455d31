"""Lesson 7: schedules of small kernels add up to the schedule of a large one.

You learn to schedule kernels on their own and to apply those schedules wherever a larger kernel calls them.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 16


def matvec(W: float32[N, N], x: float32[N]) -> float32[N]:
    y: float32[N] = 0.0
    for i, k in allo.grid(N, N):
        y[i] += W[i, k] * x[k]
    return y


def relu(x: float32[N]) -> float32[N]:
    y: float32[N]
    for i in range(N):
        y[i] = max(x[i], 0.0)
    return y


def mlp(W1: float32[N, N], W2: float32[N, N], x: float32[N]) -> float32[N]:
    return matvec(W2, relu(matvec(W1, x)))


s_matvec = allo.customize(matvec)
s_matvec.split("i", 4)
s_matvec.reorder("i.outer", "k", "i.inner")  # four rows side by side
s_matvec.unroll("i.inner")
s_matvec.pipeline("k")
s_relu = allo.customize(relu)
s_relu.pipeline("i")

s = allo.customize(mlp)
s.compose([s_matvec, s_relu])
print(s.trace)  # five primitives, bound to the functions of mlp
assert [name for name, _, _ in s.primitive_sequences].count("pipeline") == 2

rng = np.random.default_rng(0)
W1, W2, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((N, N), (N, N), (N,)))
np.testing.assert_array_equal(s.build()(W1, W2, x), allo.customize(mlp).build()(W1, W2, x))
