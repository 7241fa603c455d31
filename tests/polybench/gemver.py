"""A' = A + u1 v1^T + u2 v2^T, x = beta A'^T y + z, w = alpha A' x."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 8
alpha, beta = 0.5, 1.25


def rank_two(
    A: float32[N, N], u1: float32[N], u2: float32[N], v1: float32[N], v2: float32[N]
) -> float32[N, N]:
    B: float32[N, N]
    for i, j in allo.grid(N, N, name="update"):
        B[i, j] = A[i, j] + u1[i] * v1[j] + u2[i] * v2[j]
    return B


def transposed(B: float32[N, N], y: float32[N], z: float32[N]) -> float32[N]:
    x: float32[N] = 0
    for i, j in allo.grid(N, N, name="mac"):
        x[i] += beta * B[j, i] * y[j]
    for i in range(N, name="add"):
        x[i] = x[i] + z[i]
    return x


def plain(B: float32[N, N], x: float32[N]) -> float32[N]:
    w: float32[N] = 0
    for i, j in allo.grid(N, N, name="mac"):
        w[i] += alpha * B[i, j] * x[j]
    return w


def gemver(
    A: float32[N, N], u1: float32[N], u2: float32[N], v1: float32[N], v2: float32[N],
    y: float32[N], z: float32[N],
) -> float32[N]:  # fmt: skip
    B = rank_two(A, u1, u2, v1, v2)
    x = transposed(B, y, z)
    return plain(B, x)


def check():
    s = allo.customize(gemver)
    part = allo.customize(transposed)
    mac = part.get_loops()["mac"]
    part.reorder(mac.j, mac.i)
    part.pipeline(part.get_loops()["mac"]["i"])
    s.compose(part)
    A = np.random.rand(N, N).astype(np.float32)
    u1, u2, v1, v2, y, z = (np.random.rand(N).astype(np.float32) for _ in range(6))
    B = A + np.outer(u1, v1) + np.outer(u2, v2)
    w = alpha * B @ (beta * B.T @ y + z)
    np.testing.assert_allclose(s.build()(A, u1, u2, v1, v2, y, z), w, rtol=1e-5)
