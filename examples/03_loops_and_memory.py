"""Lesson 3: primitives on loops and memory keep the result, and are refused where they would not.

You learn split, reorder, fuse, unroll, pipeline, partition and buffer_at, and that every primitive is
checked: what a schedule does can be slow, but not wrong.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

N = 32


def blur(X: float32[N, N]) -> float32[N, N]:
    Y: float32[N, N] = 0.0
    for y, x in allo.grid(N - 2, N - 2, name="rows"):
        for r, c in allo.grid(3, 3):
            Y[y + 1, x + 1] += X[y + r, x + c] / 9.0
    return Y


s = allo.customize(blur)
print(s.get_loops())  # bands and the loops in them; loops are named like their variables

s.split("x", 10)  # x becomes x.outer and x.inner
s.reorder("x.outer", "y")  # strips of 10 columns
s.unroll("c")  # three taps side by side
s.pipeline("r", initiation_interval=2)
s.partition(s.X, dim=2, partition_type=allo.Partition.Cyclic, factor=4)  # four banks of columns
print(s)

X = np.random.default_rng(0).random((N, N), np.float32)
plain, scheduled = allo.customize(blur).build(), s.build()
np.testing.assert_array_equal(scheduled(X), plain(X))  # to the last bit: float sums keep their order

try:
    s.reorder("c", "r")  # sums the nine taps in another order
except allo.FlexError as error:
    print(error)
    assert error.code == "FX203"
