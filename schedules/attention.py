"""Attention: a row of K or V meets all tokens of the block and all query heads of its group at once.

Dot products with keys are trees over `dot_parallel` elements of a head, sums of values as many running
totals; prefill has them for every token of its block, decode for its one. Softmax works on all tokens and
`head_parallel` query heads per cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.memory import Partition

from .common import lanes, pipeline


def scores(s: Schedule, dot_parallel: int) -> None:
    """`dot_parallel` elements of a key, or all, meet the queries of the group in every cycle."""
    for buffer in (s.q, s.dot):
        _per_query(s, buffer)
    if _elements(s, s.q, dot_parallel):
        for loop in ("d_row", "t_s", "j_s"):
            s.unroll(loop)
        s.pipeline("s")
    else:
        s.pipeline("j_s")
    s.pipeline("d_q")


def weigh(s: Schedule, head_parallel: int) -> None:
    """Exponentials and weights of all tokens and `head_parallel` query heads in every cycle."""
    members = buffers(s.top_func)["score"].shape[2]
    wide = lanes(members, head_parallel)
    for position, token, member in (("s_e", "t_e", "j_e"), ("s", "t", "j")):
        s.reorder(member, token)
        s.unroll(token)
        if wide == members:
            s.unroll(member)
            s.pipeline(position)
        elif wide > 1:
            s.split(member, wide)
            s.unroll(f"{member}.inner")
            s.pipeline(f"{member}.outer")
        else:
            s.pipeline(member)
    for name in ("score", "e", "weight"):
        s.partition(getattr(s, name), Partition.Complete, dim=2)
        if wide > 1:
            s.partition(getattr(s, name), Partition.Cyclic, dim=3, factor=wide)
    for name in ("top", "total", "peak", "offset", "step"):
        _per_query(s, getattr(s, name))


def mix(s: Schedule, dot_parallel: int) -> None:
    """`dot_parallel` elements of a row of values, or all, meet the codes of the group in every cycle."""
    for buffer in (s.code, s.acc):
        _per_query(s, buffer)
    s.reorder("d", "t", "j")
    if _elements(s, s.acc, dot_parallel):
        for loop in ("d_row", "t_c", "j_c"):
            s.unroll(loop)
        s.pipeline("s")
    else:
        s.pipeline("j_c")
    s.pipeline("d_y")


def _per_query(s: Schedule, buffer: Any) -> None:
    """A register, or a bank, for every token and query head."""
    s.partition(buffer, Partition.Complete, dim=1)
    s.partition(buffer, Partition.Complete, dim=2)


def _elements(s: Schedule, other: Any, wanted: int) -> bool:
    """Lanes for the elements of a row and what they meet, for all queries; whether they take it whole."""
    size = buffers(s.top_func)["row"].shape[0]
    wide = lanes(size, wanted)
    s.unroll("t")
    s.unroll("j")
    if wide == size:
        s.unroll("d")
        s.partition(s.row, Partition.Complete, dim=1)
        s.partition(other, Partition.Complete, dim=3)
        return True
    if wide > 1:
        for loop in ("d", "d_row"):
            s.split(loop, wide)
            s.unroll(f"{loop}.inner")
            s.pipeline(f"{loop}.outer")
        s.partition(s.row, Partition.Cyclic, dim=1, factor=wide)
        s.partition(other, Partition.Cyclic, dim=3, factor=wide)
    else:
        s.pipeline("d")
        s.pipeline("d_row")
    return False


def engines(dot_parallel: int, head_parallel: int) -> dict[str, Callable[[Schedule], None]]:
    """Kernels of attention, for a stage."""
    return {
        "row_sums": partial(pipeline, loops=("d",)),
        "scores": partial(scores, dot_parallel=dot_parallel),
        "weigh": partial(weigh, head_parallel=head_parallel),
        "mix": partial(mix, dot_parallel=dot_parallel),
    }
