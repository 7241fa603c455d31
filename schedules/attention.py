"""Attention: rows of K and V meet the queries of their group, all or some of them per cycle.

Dot products with keys are trees over the elements of a head, sums of values as many running totals. Decode
has them for all queries of its token; prefill for some at a time, in one pipeline over all rows and queries.
"""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Lanes, vectorized

from .parallelism import Parallelism


def products(s: Schedule, p: Parallelism, once: str, lanes: Lanes) -> None:
    """`scores` and `mix`: `dot_parallel` elements of a row of K or V meet all queries of a token per cycle.

    In a block of tokens a whole row meets `head_parallel` of them: one pipeline takes every row, which comes
    in its first cycle, through all queries. What is done `once` per row and query keeps up with whole rows.
    A cache that is not packed keeps to `dot_parallel` elements, and to a pipeline per row. Two queries share
    a multiplier, if several products may. Other loops have so many `lanes`.
    """
    size = buffers(s.top_func)
    tokens, group, width = size["q" if "q" in size else "acc"].shape
    elements, queries = (width, p.head_parallel) if tokens > 1 else (p.dot_parallel, group)
    rows = width if any(b.words > 1 for b in size.values()) else p.dot_parallel
    wide = {"d_row": rows, once: queries, "t j": queries, "d": elements, **lanes}
    vectorized(s, wide, pairs="j" if p.macs_per_dsp > 1 else "", flat="s")


def append(s: Schedule) -> None:
    """A word of the cache per cycle, or an element where it is not packed."""
    vectorized(s, {"d.inner": 0} if buffers(s.top_func)["cache"].words > 1 else {})
