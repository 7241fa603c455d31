"""Lesson 4: loops that run at the same time, with a FIFO between them.

You learn to turn an array into a stream with `to`, that the FIFO is bounded on the CPU as well, and how a
deadlock is reported.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import Stream, int32

N = 64


def scale_and_add(X: int32[N]) -> int32[N]:
    T: int32[N]
    Y: int32[N]
    for i in allo.grid(N, name="scale"):
        T[i] = X[i] * 3
    for i in allo.grid(N, name="add"):
        Y[i] = T[i] + 1
    return Y


s = allo.customize(scale_and_add)
s.to(s.T, "add", depth=4)  # refused if "add" did not read in the order in which "scale" writes
s.dataflow("scale_and_add")  # both loops start together
X = np.arange(N, dtype=np.int32)
for target in ("llvm", "simulator"):
    np.testing.assert_array_equal(s.build(target=target)(X), X * 3 + 1)


def stuck(X: int32[N]) -> int32[N]:
    Y: int32[N]
    fifo: Stream[int32, 4]
    for i in range(N):
        fifo.put(X[i])  # nobody reads until all is written
    for i in range(N):
        Y[i] = fifo.get()
    return Y


try:
    allo.customize(stuck).build()(X)
except allo.FlexError as error:
    print(error)
    assert error.code == "FX303"
