"""The memory words of a model's weights and of its KV cache."""

from __future__ import annotations

from typing import Any

from ..hybrid import Words
from ..kernels import linear as linear_kernels
from ..models import Model

WORD_ROWS = 64
"""Rows of a weight in one memory word: 512 bits at 8 bits per weight."""
TERMS = 2
"""Terms of an output channel in one memory word: its scale, and what it is multiplied by an offset."""
CACHE_BITS = 512
"""A memory word of the KV cache: elements of one head of one token, never of two."""
LINEAR_KINDS = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down", "w_head")


def weight_words(model: Model, rows: int = WORD_ROWS) -> dict[str, Words]:
    """The memory words of every integer weight: `rows` side by side where a whole row has one scale.

    The terms of such a row are read together, and lie in words of their own.

    Weights with scales per group are multiplied row by row, so their words lie along the row. Those of
    the KV cache lie along the elements of a head: every token writes whole words, whatever block it is in.
    """
    layout: dict[str, Words] = {}
    by_rows: Any = getattr(linear_kernels, "linear")  # noqa: B009
    for kind in LINEAR_KINDS:
        storage: linear_kernels.Linear = getattr(model.operators, kind)
        if not storage.dtype.is_float and storage.Weight is not linear_kernels.NoWeight:
            channels = storage.linear is by_rows
            layout[f"{kind}_codes"] = Words(rows, "rows" if channels else "columns")
            if channels:
                layout[f"{kind}_terms"] = Words(TERMS, "columns")
    cache = model.operators.cache.dtype
    if not cache.is_float:
        layout |= dict.fromkeys(("k_codes", "v_codes"), Words(CACHE_BITS // cache.bits, "columns"))
    return layout
