"""The two inner loops of round-to-nearest, in our own language: NumPy takes a hundred times as long."""

# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false, reportAssignmentType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ...customize import customize
from ...dsl import round
from ...ir.types import float32, index, int8, int32

LANES = 16
"""Partial sums per row. The sum over k is defined lane by lane, so every vector width gives the same bits."""
_WHOLE = 12582912.0  # 1.5 * 2**23: added to a small integer, it leaves the integer in the low bits


def squared_errors(
    W: float32[...],
    scale: float32[...],
    low: float32[...],
    high: float32[...],
    rows: index,
    words: index,
    tries: index,
    error: float32[...],
):
    """error[r, c] = sum_k (u - clip(round(u), low[r, c], high[r, c]))^2 with u = W[r, k] / scale[r, c].

    W is [rows, words * LANES], the others [rows, tries], all of them flat. Lane l adds up, in order, the
    elements with k % LANES = l; then the lanes are added, in order.
    """
    for r in range(rows):
        for c in range(tries):
            at: index = r * tries + c
            step: float32 = scale[at]
            bottom: float32 = low[at]
            top: float32 = high[at]
            part: float32[LANES] = 0
            for w in range(words):
                for lane in range(LANES):
                    u: float32 = W[(r * words + w) * LANES + lane] / step
                    miss: float32 = u - max(min(round(u), top), bottom)
                    part[lane] += miss * miss
            total: float32 = 0
            for last in range(LANES):
                total += part[last]
            error[at] = total


def rounded(
    W: float32[...],
    scale: float32[...],
    zero: float32[...],
    low: float32[...],
    high: float32[...],
    rows: index,
    width: index,
    codes: int8[...],
):
    """codes[r, k] = clip(round(W[r, k] / scale[r]), low[r], high[r]) + zero[r], its low 8 bits."""
    for r in range(rows):
        step: float32 = scale[r]
        shift: float32 = zero[r]
        bottom: float32 = low[r]
        top: float32 = high[r]
        for k in range(width):
            code: float32 = max(min(round(W[r * width + k] / step), top), bottom) + shift + _WHOLE
            bits: int32 = code.bitcast()
            codes[r * width + k] = bits


@cache
def compiled(kernel: Callable[..., Any]) -> Callable[..., None]:
    """A kernel of this file in machine code. Calls release the interpreter lock."""
    return customize(kernel).build()
