"""3 x 3 stencil, with line and window buffers where the schedule makes them."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

ROWS, COLS = 8, 10


def stencil(orig: int32[ROWS, COLS], filt: int32[3, 3]) -> int32[ROWS - 2, COLS - 2]:
    sol: int32[ROWS - 2, COLS - 2] = 0
    for r, c in allo.grid(ROWS - 2, COLS - 2, name="cell"):
        temp: int32 = 0
        for k1, k2 in allo.reduction(3, 3, name="window"):
            temp += filt[k1, k2] * orig[r + k1, c + k2]
        sol[r, c] = temp
    return sol


def check():
    s = allo.customize(stencil)
    s.unroll("k1")
    s.unroll("k2")
    s.pipeline("c")
    s.partition(s.filt, dim=0)
    x, f = (
        np.random.randint(-99, 99, (ROWS, COLS)).astype(np.int32),
        np.random.randint(-9, 9, (3, 3)).astype(np.int32),
    )
    want = sum(f[a, b] * x[a : a + ROWS - 2, b : b + COLS - 2] for a, b in np.ndindex(3, 3))
    np.testing.assert_array_equal(s.build()(x, f), want)
