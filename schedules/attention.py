"""Attention: a row of K or V meets all tokens of the block and all query heads of its group at once.

Dot products with keys are trees over the elements of a head, sums of values as many running totals; prefill
has them for every token of its block, decode for its one.
"""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers

from .parallelism import Parallelism


def products(s: Schedule, p: Parallelism, once: tuple[str, str]) -> None:
    """`scores` and `mix`: `dot_parallel` elements of a row of K or V meet all queries of the group per cycle.

    Where that is a whole row, what is done `once` per row and query keeps up with it; else that is done for
    all queries of the group and `lanes` tokens at a time. A row comes word by word, if the cache is packed.
    """
    s.vectorize("d_row", max(p.dot_parallel, *(b.words for b in buffers(s.top_func).values())))
    whole = s.vectorize("d", p.dot_parallel) is None
    for loop in (once[1], "t", "j"):
        s.vectorize(loop)
    s.vectorize(once[0], 0 if whole else p.lanes)
    s.pipeline()


def append(s: Schedule) -> None:
    """A word of the cache per cycle, or an element where it is not packed."""
    if buffers(s.top_func)["cache"].words > 1:
        s.vectorize("d.inner")
    s.pipeline()
