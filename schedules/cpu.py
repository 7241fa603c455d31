"""The CPU: the order of loops that a compiler turns into vector code, and the loops that threads share.

No FIFOs and no partitions.  Products of integers become tiles of rows and columns; where the weights of
`linear` have four bits, two of them may lie in a byte (`HALF_BYTES`).  The loops of unquantized sums may be
reassociated, or they would not vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.hybrid import Words
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.nests import extent
from flexllm_allo.schedule.stage import Stage


def is_float(s: Schedule, buffer: str) -> bool:
    """Whether a buffer of the function holds floats."""
    return buffers(s.top_func)[buffer].dtype.is_float


HALF_BYTES = Words(2, "columns")
"""Two neighbours of a row of four-bit weights in a byte, which tiles take apart by whole vectors."""


def linear(s: Schedule) -> None:
    """Dot products along the rows of W, which threads share."""
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


def heads(s: Schedule) -> None:
    """Threads share the KV heads, each with the queries of its group."""
    s.parallel("head.g")


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
        "attention": heads,
        "attention_static": heads,
        "rms_norm": partial(share, loops=("t",)),
        "quantize": partial(share, loops=("r",)),
        "rope": partial(share, loops=("t", "h")),
        "swiglu": partial(share, loops=("t", "i")),
    }
    return Stage("cpu", token_parallel, kernels)
