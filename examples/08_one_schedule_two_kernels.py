"""Lesson 8: a schedule is a function of a `Schedule`, and so serves every kernel of the same form.

You learn to write a schedule once and to use it on kernels of other sizes, types and formulas.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int8, int32


def row_parallel(s: allo.Schedule, row: str, column: str, lanes: int) -> None:
    """Compute `lanes` neighbouring columns of one row at a time."""
    s.split(column, lanes)
    s.reorder(f"{column}.outer", "k", f"{column}.inner")
    s.unroll(f"{column}.inner")
    s.pipeline("k")
    s.buffer_at(s.C, row)


def gemm(A: int8[16, 32], B: int8[32, 24]) -> int32[16, 24]:
    C: int32[16, 24] = 0
    for i, j, k in allo.grid(16, 24, 32):
        C[i, j] += A[i, k] * B[k, j]
    return C


def distances(A: float32[8, 4], B: float32[12, 4]) -> float32[8, 12]:
    C: float32[8, 12] = 0.0
    for p, q, k in allo.grid(8, 12, 4):
        C[p, q] += (A[p, k] - B[q, k]) * (A[p, k] - B[q, k])
    return C


rng = np.random.default_rng(0)
for kernel, dtype, loops in ((gemm, np.int8, ("i", "j")), (distances, np.float32, ("p", "q"))):
    s = allo.customize(kernel)
    s.apply(row_parallel, *loops, lanes=4)  # all of it, or nothing if a primitive is refused
    print(s)
    inputs = [(rng.standard_normal(b.shape) * 10).astype(dtype) for b in s.top_func.inputs]
    np.testing.assert_array_equal(s.build()(*inputs), allo.customize(kernel).build()(*inputs))
