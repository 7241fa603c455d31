"""The CPU: the order of loops that a compiler turns into vector code, and the loops that threads share.

No FIFOs and no partitions.  Products of integers become tiles of rows and columns; weights of four bits
lie two in a byte.  The loops of unquantized sums may be reassociated, or they would not vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.nests import extent
from flexllm_allo.schedule.stage import Stage


def is_float(s: Schedule, buffer: str) -> bool:
    """Whether a buffer of the function holds floats."""
    return buffers(s.top_func)[buffer].dtype.is_float


def linear(s: Schedule) -> None:
    """Dot products along the rows of W, which threads share."""
    w = buffers(s.top_func)["W"]
    if w.words == 1 and w.dtype.is_integer and w.dtype.bits == 4 and w.shape[1] % 2 == 0:
        s.pack(s.W, factor=2, dim=2)
    s.reorder("mac.n", "mac.t")
    s.parallel("mac.n")
    if is_float(s, "acc"):
        s.reassociate("mac.k")
    share(s, ("scale.t",))


def grouped(s: Schedule) -> None:
    """Dot products along the groups of a row."""
    s.reorder("t", "k")
    s.parallel("n")


def scores(s: Schedule) -> None:
    """Dot products along the head; the sum over values is a row operation already."""
    s.reorder("t", "j", "d")
    if is_float(s, "dot"):
        s.reassociate("d")


def share(s: Schedule, loops: tuple[str, ...]) -> None:
    """Threads share the first of those loops that has more than one iteration."""
    for name in loops:
        found = [n for n in walk(s.top_func.body) if isinstance(n, ir.For) and n.var == name.split(".")[-1]]
        if any(extent(n) != 1 for n in found):
            s.parallel(name)
            return


def blocked(token_parallel: int = 16) -> Stage:
    """Blocks of `token_parallel` tokens; 1 for decode."""
    kernels: dict[str, Callable[[Schedule], None]] = {
        "linear": linear,
        "linear_group": grouped,
        "linear_zero": grouped,
        "linear_progressive": grouped,
        "scores": scores,
        "rms_norm": partial(share, loops=("t",)),
        "quantize": partial(share, loops=("r",)),
        "swiglu": partial(share, loops=("t", "i")),
    }
    return Stage("cpu", token_parallel, kernels)
