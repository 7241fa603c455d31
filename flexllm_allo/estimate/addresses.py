"""Which elements, and which banks, all copies of an access touch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..ir import nodes as ir
from ..ir.walk import walk
from .evaluate import value_of
from .ops import Access
from .ports import Storage, banks_and_words

MAX_DEPTH = 10
"""Unrolled loops in one another: each is an axis of the arrays of values here, behind that of the samples."""

SAMPLES = 3
"""Values tried of every variable that is not unrolled."""

MAX_COPIES = 1 << 18
"""Copies whose banks are found one by one; the elements of more are not known."""


class Addresses:
    """The accesses of one body.

    Args:
        buffers: of the function.
        places: where they lie.
    """

    def __init__(self, buffers: Mapping[str, ir.Buffer], places: Mapping[str, Storage]) -> None:
        self.buffers, self.places = buffers, places
        self.random = np.random.default_rng(0)
        self.read: dict[str, list[Any]] = {}

    def written(self, buffer: str) -> None:
        """What was read of a buffer may have changed."""
        self.read.pop(buffer, None)

    def find(self, access: Access, known: dict[str, Any], changed: Collection[str]) -> None:
        """Fill in the elements and banks of an access, where its indices can be evaluated.

        Args:
            known: values of scalars and loop variables, an array over all copies where they differ; variables
                that are not unrolled get sample values here.
            changed: scalars that the body computes: without a value in `known`, they have none.
        """
        if self.places[access.buffer].kind == "fifo" or access.copies > MAX_COPIES:
            return
        numbers = [self._number(index, known, changed) for index in access.affine or access.indices]
        if any(n is None for n in numbers):
            return
        shape = np.broadcast_shapes(*(np.shape(n) for n in numbers), (SAMPLES,) + (1,) * MAX_DEPTH)
        bank, word = (
            np.broadcast_to(x, shape).reshape(SAMPLES, -1)
            for x in banks_and_words(self.buffers[access.buffer], numbers)
        )
        access.elements = [frozenset(word[s].tolist()) for s in range(SAMPLES)]
        every = [np.ones(word.shape[1], bool)] * SAMPLES
        new = every if access.write else self._unread(access.buffer, word)
        access.banks = [_distinct(bank[s][new[s]], word[s][new[s]]) for s in range(SAMPLES)]
        access.copies = max(int(sum(counts.values())) for counts in access.banks)

    def _unread(self, buffer: str, word: Any) -> list[Any]:
        """Which elements have not been read yet, in every sample: the others are there already."""
        before = self.read.get(buffer, [np.empty(0, np.int64)] * SAMPLES)
        self.read[buffer] = [np.union1d(before[s], word[s]) for s in range(SAMPLES)]
        return [~np.isin(word[s], before[s]) for s in range(SAMPLES)]

    def _number(self, expr: ir.Expr, known: dict[str, Any], changed: Collection[str]) -> Any:
        for node in walk(expr):
            name = node.name if isinstance(node, ir.LoopVar) else None
            if isinstance(node, ir.Load) and not node.indices and node.buffer not in changed:
                name = node.buffer
            if name is not None and name not in known:
                drawn = self.random.integers(0, 1024, SAMPLES)
                drawn[0] = 0
                known[name] = drawn.reshape((SAMPLES,) + (1,) * MAX_DEPTH)
        return value_of(expr, known)


def _distinct(bank: Any, word: Any) -> dict[int, int]:
    """How many different elements of every bank are touched."""
    if not word.size:
        return {}
    least, most = int(word.min()), int(word.max())
    span = most - least + 1
    pairs = np.unique(bank.astype(np.int64) * span + (word - least))  # faster than by columns
    banks, counts = np.unique(pairs // span, return_counts=True)
    return dict(zip(banks.tolist(), counts.tolist(), strict=True))


__all__ = ["MAX_DEPTH", "Addresses"]
