"""Seven-point stencil; the border is copied."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

N = 6


def stencil3d(C0: int32, C1: int32, orig: int32[N, N, N], sol: int32[N, N, N]):
    for i, j, k in allo.grid(N, N, N, name="cell"):
        if i == 0 or i == N - 1 or j == 0 or j == N - 1 or k == 0 or k == N - 1:
            sol[i, j, k] = orig[i, j, k]
        else:
            around: int32 = (
                orig[i + 1, j, k] + orig[i - 1, j, k] + orig[i, j + 1, k]
                + orig[i, j - 1, k] + orig[i, j, k + 1] + orig[i, j, k - 1]
            )  # fmt: skip
            sol[i, j, k] = C0 * orig[i, j, k] + C1 * around


def check():
    s = allo.customize(stencil3d)
    s.pipeline("k")
    x = np.random.randint(-99, 99, (N, N, N)).astype(np.int32)
    want = x.copy()
    c = slice(1, -1)
    want[c, c, c] = 3 * x[c, c, c] - 2 * (
        x[2:, c, c] + x[:-2, c, c] + x[c, 2:, c] + x[c, :-2, c] + x[c, c, 2:] + x[c, c, :-2]
    )
    out = np.zeros_like(x)
    s.build()(3, -2, x, out)
    np.testing.assert_array_equal(out, want)
