"""y = alpha A x + beta B x."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import Fixed, float32

N = 10


def gesummv(A: float32[N, N], B: float32[N, N], x: float32[N], alpha: float32, beta: float32) -> float32[N]:
    y: float32[N] = 0
    for i in range(N, name="row"):
        a: float32 = 0
        b: float32 = 0
        for j in range(N, name="dot"):
            a += A[i, j] * x[j]
            b += B[i, j] * x[j]
        y[i] = alpha * a + beta * b
    return y


def fixed(A: Fixed(16, 8)[N, N], x: Fixed(16, 8)[N]) -> Fixed(32, 16)[N]:
    y: Fixed(32, 16)[N] = 0
    for i, j in allo.grid(N, N):
        y[i] += A[i, j] * x[j]
    return y


def check():
    s = allo.customize(gesummv)
    s.split("i", 5)
    s.pipeline("j")
    s.unroll("i.inner", factor=5)
    A, B = np.random.rand(2, N, N).astype(np.float32)
    x = np.random.rand(N).astype(np.float32)
    np.testing.assert_allclose(s.build()(A, B, x, 0.5, 2.0), 0.5 * A @ x + 2 * B @ x, rtol=1e-5)
    a, v = np.random.randint(-64, 64, (N, N)) / 256, np.random.randint(-64, 64, N) / 256
    np.testing.assert_array_equal(allo.customize(fixed).build()(a, v), a @ v)
