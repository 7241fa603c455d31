"""`to` after `unfold`: an array between processing elements becomes an array of FIFOs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.accesses import accesses
from ..analysis.spatial import expanded
from ..analysis.streams import NotEnumerable, sequence
from ..errors import Place, ScheduleValueError, Span, StreamError
from ..ir import nodes as ir
from ..ir.walk import buffers
from .fifo import Rewriter, region_body, with_region
from .initial import initialisers
from .names import Path

_Ints = NDArray[np.int64]


def insert_fifos(
    program: ir.Program,
    function: ir.Function,
    region: Path,
    array: ir.Buffer,
    axes: Sequence[int],
    axis: int | None,
    depth: int,
) -> ir.Program:
    """Replace an array by one FIFO per position along its dimensions `axes`.

    Along the other dimensions the elements follow each other in time.  `axis` is the dimension along
    which data move on from element to element; it must be one of `axes`.

    Raises:
        ScheduleValueError: FX204, dimensions.
        StreamError: FX301 order or count, FX302 several writers or readers of one FIFO.
    """
    dims = _spatial(array, axes, axis)
    body = region_body(function, region)
    _check(program, body, array, dims)
    shape = tuple(array.shape[d] for d in dims)
    length = prod(n for d, n in enumerate(array.shape) if d not in dims)
    fifo = ir.Buffer(array.name, array.dtype, shape, depth=length if depth == -1 else depth, span=array.span)
    rewriter = Rewriter(program, set(buffers(function)), dims)
    fills = initialisers(program, body, array.name)
    kept = tuple(
        ir.Alloc(fifo, span=s.span) if isinstance(s, ir.Alloc) and s.buffer.name == array.name else s
        for s in body
        if s not in fills
    )
    kept = rewriter.gets(kept, array.name, fifo)
    kept = rewriter.puts(kept, array.name, fifo, keep=False)
    return rewriter.program.with_function(with_region(function, region, kept))


def _spatial(array: ir.Buffer, axes: Sequence[int], axis: int | None) -> tuple[int, ...]:
    rank = len(array.shape)
    at = Place(array.span, f"{rank} dimensions")
    if any(isinstance(d, bool) or not 0 <= d < rank for d in axes) or len(set(axes)) != len(axes):
        message = f'"{array.name}" has no dimensions {list(axes)} to become an array of FIFOs'
        raise ScheduleValueError("FX204", message, at, f"different positions from 0 to {rank - 1}")
    if axis is not None and axis not in axes:
        message = f"axis {axis} is not one of the unfolded dimensions {list(axes)}"
        raise ScheduleValueError("FX204", message, at, "the dimension along which data move on")
    return tuple(sorted(axes))


def _uses(program: ir.Program, stmt: ir.Stmt, name: str) -> bool:
    return any(a.buffer == name for a in accesses((stmt,), program))


# ------------------------------------------------------------------------------- order and processes


@dataclass(frozen=True)
class _Side:
    """All writes (or reads) of the array, sorted by FIFO and then by time."""

    fifo: _Ints
    element: _Ints
    process: _Ints
    site: _Ints
    spans: tuple[Span, ...]

    def span(self, i: int) -> Span:
        return self.spans[int(self.site[i])]


def _check(program: ir.Program, body: tuple[ir.Stmt, ...], array: ir.Buffer, dims: tuple[int, ...]) -> None:
    """Every FIFO has one writer before one reader, and gives each element once, in one order."""
    fills = initialisers(program, body, array.name)
    processes: list[ir.Stmt] = [
        s for s in expanded(body)
        if not isinstance(s, ir.Alloc) and s not in fills and _uses(program, s, array.name)
    ]  # fmt: skip
    puts = _side(program, processes, array, dims, write=True)
    gets = _side(program, processes, array, dims, write=False)
    for side, verb in ((puts, "written"), (gets, "read")):
        _check_single(array, side, verb)
    shorter = min(len(puts.fifo), len(gets.fifo))
    differ = np.flatnonzero(puts.element[:shorter] != gets.element[:shorter])
    if differ.size or len(puts.fifo) != len(gets.fifo):
        _refuse_order(array, puts, gets, int(differ[0]) if differ.size else shorter)
    late = np.flatnonzero(puts.process >= gets.process)
    if late.size:
        n = int(late[0])
        same = puts.process[n] == gets.process[n]
        raise StreamError(
            "FX302", f"{_name(array, puts.element[n])} is "
            + ("written and read by one process" if same else "read before it is written"),
            at=[Place(puts.span(n), "written here"), Place(gets.span(n), "read here")],
            hint="a FIFO carries values from one process to a later one",
        )  # fmt: skip


def _side(
    program: ir.Program, processes: list[ir.Stmt], array: ir.Buffer, dims: tuple[int, ...], write: bool
) -> _Side:
    elements: list[_Ints] = []
    owners: list[_Ints] = []
    sites: list[_Ints] = []
    spans: list[Span] = []
    for number, stmt in enumerate(processes):
        try:
            found = sequence(program, stmt, array, write)
        except NotEnumerable as error:
            verb = "written" if write else "read"
            message = f'the order in which "{array.name}" is {verb} is not known: {error.reason}'
            raise StreamError("FX301", message, error.span, "go through it with plain loops") from None
        elements.append(found.elements)
        owners.append(np.full(len(found.elements), number))
        sites.append(found.sites + len(spans))
        spans += found.spans
    empty = np.zeros(0, np.int64)
    element, owner, site = (np.concatenate([empty, *part]) for part in (elements, owners, sites))
    place: Any = np.unravel_index(element, array.shape)
    fifo: _Ints = np.zeros_like(element)
    for d in dims:
        fifo = fifo * array.shape[d] + place[d]
    order = np.argsort(fifo, kind="stable")
    return _Side(fifo[order], element[order], owner[order], site[order], tuple(spans))


def _check_single(array: ir.Buffer, side: _Side, verb: str) -> None:
    same = side.fifo[1:] == side.fifo[:-1]
    mixed = np.flatnonzero(same & (side.process[1:] != side.process[:-1]))
    if mixed.size:
        n = int(mixed[0]) + 1
        raise StreamError(
            "FX302", f"two processes would {'write' if verb == 'written' else 'read'} the FIFO of "
            f"{_name(array, side.element[n])}",
            at=[Place(side.span(n), f"{verb} here"), Place(side.span(n - 1), "and here")],
            hint="unfold the loops along all dimensions of the array that become FIFOs",
        )  # fmt: skip
    values, counts = np.unique(side.element, return_counts=True)
    again = values[counts > 1]
    if again.size:
        n = int(np.flatnonzero(side.element == again[0])[1])
        raise StreamError(
            "FX301", f"{_name(array, again[0])} is {verb} more than once",
            at=Place(side.span(n), "here again"), hint="keep it in a local variable",
        )  # fmt: skip


def _refuse_order(array: ir.Buffer, puts: _Side, gets: _Side, n: int) -> None:
    written, read = (_name(array, s.element[n]) if n < len(s.element) else "nothing" for s in (puts, gets))
    places = [
        Place(s.span(n), f"{v} here") for s, v in ((puts, "written"), (gets, "read")) if n < len(s.site)
    ]
    raise StreamError(
        "FX301", f'"{array.name}" is not read as it is written: where {written} is written, {read} is read',
        at=places, hint="every element is written and read once, in one order per FIFO",
    )  # fmt: skip


def _name(array: ir.Buffer, element: Any) -> str:
    place: Any = np.unravel_index(int(element), array.shape)
    return f"{array.name}[{', '.join(str(int(i)) for i in place)}]"


__all__ = ["insert_fifos"]
