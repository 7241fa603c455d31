"""The primitive `reshape`: the same elements under other dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..errors import Place, ScheduleError, ScheduleValueError
from ..ir import nodes as ir
from ..ir.simplify import binary, const, simplify
from ..ir.walk import Node, rewrite
from .buffers import Alias, Target, aliases, change_buffer, find_buffer
from .names import find_function


def reshape(program: ir.Program, func: str, target: Target, shape: Sequence[int]) -> ir.Program:
    """Give an array other dimensions with the same number of elements in the same order.

    The array changes under all its names; of an argument or a result the signature changes.
    Accesses keep their element: ``A[i, j]`` of ``4 x 3`` is ``A[i * 3 + j]`` of ``12``.

    Args:
        target: the array.
        shape: the new extents.

    Raises:
        ScheduleValueError: FX204, no extents or another number of elements.
        ScheduleError: FX205, a FIFO, banks or words on a dimension that changes, or a part of the
            array that is passed to a function and would not be one any more.

    Example:
        >>> s = allo.customize(double)
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i, j] = A[i, j] * 2
            return C
        >>> s.reshape(s.C, (12,))
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[12]:
            C: int32[12]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i * 3 + j] = A[i, j] * 2
            return C
    """
    function, buffer = find_buffer(program, func, target)
    new = _check(buffer, shape)
    if new == buffer.shape:
        return program
    found = [
        (alias, _change(alias, buffer.shape, new)) for alias in aliases(program, function.name, buffer.name)
    ]
    for alias, change in found:
        _check_alias(alias, change)
    for alias, change in found:
        owner = find_function(program, alias.func)
        if change.old != change.new:
            program = program.with_function(_rewritten(owner, alias.buffer, change))
    return program


def _check(buffer: ir.Buffer, shape: Sequence[int]) -> tuple[int, ...]:
    at = Place(buffer.span, f'"{buffer.name}" has the shape {buffer.shape}')
    given: Any = shape if isinstance(shape, list | tuple) else (shape,)
    if buffer.is_stream or not buffer.shape:
        what = "a FIFO" if buffer.is_stream else "a scalar"
        raise ScheduleError("FX205", f'"{buffer.name}" is {what}', at, "only arrays have dimensions")
    if not given or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in given):
        raise ScheduleValueError("FX204", f"Invalid shape {shape!r}", at, "extents of at least 1")
    if prod(given) != prod(buffer.shape):
        message = f'cannot reshape "{buffer.name}" from {buffer.shape} to {tuple(given)}'
        hint = f"extents whose product is {prod(buffer.shape)}"
        raise ScheduleValueError("FX204", message, at, hint)
    return tuple(given)


@dataclass(frozen=True)
class _Change:
    """Old and new shape of one name of the array; the dimensions before `first` and the last `kept` stay."""

    old: tuple[int, ...]
    new: tuple[int, ...]

    @property
    def first(self) -> int:
        n = 0
        while n < min(len(self.old), len(self.new)) and self.old[n] == self.new[n]:
            n += 1
        return n

    @property
    def kept(self) -> int:
        n, most = 0, min(len(self.old), len(self.new)) - self.first
        while n < most and self.old[-1 - n] == self.new[-1 - n]:
            n += 1
        return n

    def indices(self, old: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        """The indices of the same element, or of the same part for fewer indices than dimensions."""
        first, last = self.first, len(self.old) - self.kept
        if len(old) <= first:
            return old
        position: ir.Expr = const(0)
        for index, extent in zip(old[first:last], self.old[first:last], strict=True):
            position = binary("+", binary("*", position, extent), index)
        middle: list[ir.Expr] = []
        changed = self.new[first : len(self.new) - self.kept]
        for d, extent in enumerate(changed):
            below = prod(changed[d + 1 :])
            part = binary("//", position, below)
            middle.append(part if d == 0 else binary("%", part, extent))
        return (*old[:first], *(simplify(e) for e in middle), *old[last:])

    def fits(self, count: int) -> bool:
        """Whether a part chosen by that many leading indices is still a part."""
        return count <= self.first or count >= len(self.old) - self.kept


def _change(alias: Alias, old: tuple[int, ...], new: tuple[int, ...]) -> _Change:
    """What the new shape means for a name with fewer or more leading dimensions."""
    mine, whole = alias.buffer.shape, _Change(old, new)
    if alias.shift <= 0:
        return _Change(mine, (*mine[: -alias.shift], *new) if alias.shift else new)
    if alias.shift <= whole.first:
        return _Change(mine, new[alias.shift :])
    if whole.fits(alias.shift):
        return _Change(mine, mine)
    raise ScheduleError(
        "FX205", f'a part of the array is passed to "{alias.func}" and would not be one any more',
        at=Place(alias.buffer.span, f"shape {mine}"), hint="keep the dimensions of that part",
    )  # fmt: skip


def _check_alias(alias: Alias, change: _Change) -> None:
    buffer, reason = alias.buffer, ""
    last = len(change.old) - change.kept
    if buffer.is_stream:
        reason = "is a FIFO"
    elif any(
        change.first < bank.dim and (bank.dim <= last or len(change.old) != len(change.new))
        for bank in buffer.banks
    ):
        reason = "has banks on a dimension that changes"
    elif buffer.words > 1 and -buffer.word_axis > change.kept:
        reason = "is packed along a dimension that changes"
    if reason and change.old != change.new:
        message = f'"{buffer.name}" {reason} and cannot be reshaped'
        raise ScheduleError("FX205", message, buffer.span, "reshape first, then partition or pack")


def _rewritten(function: ir.Function, old: ir.Buffer, change: _Change) -> ir.Function:
    def visit(node: Node) -> Node | None:
        match node:
            case ir.Load() | ir.Store() | ir.View() if node.buffer == old.name:
                if not change.fits(len(node.indices)):
                    message = f'a part of "{old.name}" is passed on and would not be one any more'
                    raise ScheduleError("FX205", message, node.span, "keep the dimensions of that part")
                return replace(node, indices=change.indices(node.indices))
            case _:
                return None

    made = replace(function, body=rewrite(function.body, visit))
    return change_buffer(made, replace(old, shape=change.new))


__all__ = ["reshape"]
