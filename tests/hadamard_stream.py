"""A Hadamard transform all stages of which work at the same time: a chain of processes joined by FIFOs."""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false
from __future__ import annotations

import flexllm_allo as allo
from flexllm_allo import meta_else, meta_if, params, template
from flexllm_allo.ir.types import float32
from flexllm_allo.paley import hadamard_base
from flexllm_allo.schedules.common import stream

K, R, N = params("K, R, N")


@template(R, N)
def butterfly(X: float32[R, N]) -> float32[R, N]:
    """Sums of neighbours in the first half of a row, their differences in the second: those come later."""
    Y: float32[R, N]
    for r in range(R, name="row"):
        late: float32[N // 2]
        for i in range(N // 2, name="pair"):
            a: float32 = X[r, 2 * i]
            b: float32 = X[r, 2 * i + 1]
            Y[r, i] = a + b
            late[i] = a - b
        for i_late in range(N // 2, name="late"):
            Y[r, N // 2 + i_late] = late[i_late]
    return Y


@template(R, N)
def hadamard_finish(X: float32[R, N]) -> float32[R, N]:
    Y: float32[R, N]
    for r in range(R, name="row"):
        for i in range(N, name="scale"):
            Y[r, i] = X[r, i] * N**-0.5
    return Y


@template(K, R, N)
def hadamard_stages(X: float32[R, N]) -> float32[R, N]:
    """The last K stages of butterflies and what follows them."""
    with meta_if(K == 0):
        Y = hadamard_finish(X)
        return Y
    with meta_else():
        half = butterfly(X)
        Y = hadamard_stages[K - 1](half)
        return Y


@template(R, N)
def hadamard(X: float32[R, N]) -> float32[R, N]:
    """`kernels.hadamard.hadamard` for a power of two."""
    Y = hadamard_stages[hadamard_base(N)[1]](X)
    return Y


def streamed(rows: int, size: int) -> allo.Schedule:
    """A FIFO between any two stages; two elements of one come per iteration."""
    s = allo.customize(hadamard, instantiate=[rows, size])
    for name in s.instances("butterfly"):
        stage = s.function(name)
        stage.pipeline("i", initiation_interval=2)
        stage.pipeline("i_late")
    for name in s.instances("hadamard_stages"):
        s.function(name).apply(stream, names="half")
    s.function(s.instances("hadamard_finish")[0]).pipeline()
    return s
