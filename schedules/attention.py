"""Attention: a row of K or V meets all tokens of the block and all query heads of its group at once.

Dot products with keys are trees over the elements of a head, sums of values as many running totals; prefill
has them for every token of its block, decode for its one.
"""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers


def products(s: Schedule, elements: int, once: tuple[str, str], lanes: int = 1) -> None:
    """`scores` and `mix`: `elements` of a row of K or V meet all queries of the group in every cycle.

    Where that is a whole row, what is done `once` per row and query keeps up with it; else that is done for
    all queries of the group and `lanes` tokens at a time. A row comes word by word, if the cache is packed.
    """
    s.vectorize("d_row", max(elements, *(b.words for b in buffers(s.top_func).values())))
    whole = s.vectorize("d", elements) is None
    if whole:
        for loop in once:
            s.vectorize(loop)
    elif lanes > 1:
        s.vectorize(once[1])
        s.vectorize(once[0], lanes)
    for loop in ("t", "j"):
        s.vectorize(loop)
    s.pipeline()


def weigh(s: Schedule, heads: int) -> None:
    """Exponentials and weights of all tokens and `heads` query heads in every cycle."""
    for token, head in (("t_e", "j_e"), ("t", "j")):
        s.vectorize(token)
        s.vectorize(head, heads)
    s.pipeline()


def append(s: Schedule) -> None:
    """A word of the cache per cycle, or an element where it is not packed."""
    if buffers(s.top_func)["cache"].words > 1:
        s.vectorize("d.inner")
    s.pipeline()
