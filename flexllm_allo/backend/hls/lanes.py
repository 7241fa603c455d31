"""Writing one element of a packed word: what ``pack`` makes of a store, as one call.

The IR says ``word = (word & ~(mask << low)) | (value << low)``, which is right for every backend, but
on words of hundreds of bits slow in C simulation and hard to read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir import nodes as ir


@dataclass(frozen=True, slots=True)
class LaneWrite:
    """``word[low : low + width] = value``."""

    low: ir.Expr
    width: int
    value: ir.Expr


def lane_write(stmt: ir.Store) -> LaneWrite | None:
    """The store as the write of one lane, if it is one."""
    match stmt.value:
        case ir.Binary(
            "|",
            ir.Binary("&", ir.Load() as word, ir.Unary("~", ir.Binary("<<", ir.Const() as mask, hole))),
            ir.Binary("<<", value, low),
        ):
            width = int(mask.value).bit_length()
            same_word = word.buffer == stmt.buffer and word.indices == stmt.indices
            fits = mask.value == (1 << width) - 1 and _bits(value) <= width <= 64
            if same_word and fits and hole == low:
                return LaneWrite(low, width, value)
        case _:
            pass
    return None


def _bits(value: ir.Expr) -> int:
    """How many bits an unsigned value can take before it was widened to the word."""
    inner = value.value if isinstance(value, ir.Cast) else value
    if isinstance(inner, ir.Const):
        return int(inner.value).bit_length() if inner.value >= 0 else inner.type.bits
    return inner.type.bits if not inner.type.signed and inner.type.is_integer else 1 << 16
