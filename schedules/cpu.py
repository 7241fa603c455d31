"""The CPU: the order of loops that a compiler turns into vector code.

No FIFOs and no partitions.  Each row of W is used for all tokens of the block while it is in the
cache.  The loops of unquantized sums may be reassociated, or they would not vectorise.
"""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.schedule.stage import Stage

from .common import is_float


def linear(s: Schedule) -> None:
    """Dot products along the rows of W, which threads share."""
    s.reorder("mac.n", "mac.t")
    s.parallel("mac.n")
    if is_float(s, "acc"):
        s.reassociate("mac.k")


def grouped(s: Schedule) -> None:
    """Dot products along the groups of a row."""
    s.reorder("t", "k")


def attention(s: Schedule) -> None:
    """Dot products along the head; the sum over values is a row operation already."""
    if is_float(s, "dot"):
        s.reassociate("d_qk")


def blocked(token_parallel: int = 16) -> Stage:
    """Blocks of `token_parallel` tokens; 1 for decode."""
    kernels = {
        "linear": linear,
        "linear_group": grouped,
        "linear_zero": grouped,
        "linear_progressive": grouped,
        "attention": attention,
    }
    return Stage("cpu", token_parallel, kernels)
