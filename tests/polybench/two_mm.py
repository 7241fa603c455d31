"""D = alpha A B C + beta D."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo import params, template
from flexllm_allo.ir.types import float32

T, P, Q, R = params("T, P, Q, R")


def two_mm(dtype, p, q, r, t, alpha=0.1, beta=0.1):
    @template(T, P, Q, R)
    def mm(A: "T[P, Q]", B: "T[Q, R]") -> "T[P, R]":
        C: T[P, R] = 0
        for i0, j0 in allo.grid(P, R, name="mm"):
            for k0 in allo.reduction(Q):
                C[i0, j0] += A[i0, k0] * B[k0, j0]
        return C

    def ele_add(A: float32[p, t], D: float32[p, t]) -> float32[p, t]:
        out: float32[p, t] = 0
        for i2, j2 in allo.grid(p, t):
            out[i2, j2] = alpha * A[i2, j2] + beta * D[i2, j2]
        return out

    def kernel(A: float32[p, q], B: float32[q, r], C: float32[r, t], D: float32[p, t]) -> float32[p, t]:
        AB = mm[dtype, p, q, r, "first"](A, B)
        ABC = mm[dtype, p, r, t, "second"](AB, C)
        return ele_add(ABC, D)

    def optimized(sizes):
        s = allo.customize(mm, instantiate=[dtype, *sizes])
        s.reorder("k0", "j0")
        s.buffer_at(s.C, axis="i0")
        s.pipeline("j0")
        return s

    s = allo.customize(kernel)
    s.compose(optimized([p, q, r]), id="first")
    s.compose(optimized([p, r, t]), id="second")
    return s


def check():
    p, q, r, t = 4, 8, 6, 10
    A, B, C, D = (np.random.rand(*x).astype(np.float32) for x in ((p, q), (q, r), (r, t), (p, t)))
    out = two_mm(float32, p, q, r, t).build()(A, B, C, D)
    np.testing.assert_allclose(out, 0.1 * A @ B @ C + 0.1 * D, rtol=1e-5)
