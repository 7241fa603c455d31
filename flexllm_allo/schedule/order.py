"""Is an array read in the order in which it is written, every element exactly once?"""

from __future__ import annotations

import numpy as np

from ..analysis.accesses import accesses, written
from ..analysis.dependence import same_element_twice
from ..analysis.streams import NotEnumerable, Sequence, sequence
from ..analysis.syntax import same_expr
from ..errors import Place, StreamError
from ..ir import nodes as ir
from ..ir.walk import substitute, walk


def check_order(program: ir.Program, buffer: ir.Buffer, producer: ir.Stmt, consumer: ir.Stmt) -> None:
    """Compare the nests, or failing that the sequences of elements.

    Raises:
        StreamError: FX301.
    """
    if _same_nests(program, buffer, producer, consumer):
        return
    put = _sequence(program, producer, buffer, write=True)
    got = _sequence(program, consumer, buffer, write=False)
    _check_once(buffer, put, "written")
    shorter = min(len(put.elements), len(got.elements))
    differ = np.flatnonzero(put.elements[:shorter] != got.elements[:shorter])
    if differ.size:
        n = int(differ[0])
        a, b = _name(buffer, int(put.elements[n])), _name(buffer, int(got.elements[n]))
        raise StreamError(
            "FX301",
            f'"{buffer.name}" is not read in the order it is written: access {n} writes {a} but reads {b}',
            at=[Place(put.span(n), f"access {n} writes {a}"), Place(got.span(n), f"access {n} reads {b}")],
            hint=_hint(put, got),
        )  # fmt: skip
    if len(put.elements) != len(got.elements):
        _refuse_count(buffer, put, got)


def _hint(put: Sequence, got: Sequence) -> str:
    if len(np.unique(got.elements)) < len(got.elements):
        return "an element is read more than once: read it once into a local variable or buffer"
    return "reorder the loops of the producer or the consumer so that both go through it in one order"


def _refuse_count(buffer: ir.Buffer, put: Sequence, got: Sequence) -> None:
    writes, reads = len(put.elements), len(got.elements)
    n = min(writes, reads)
    longer, verb = (put, "written") if writes > reads else (got, "read")
    places = [Place(longer.span(n), f"{_name(buffer, int(longer.elements[n]))} is {verb} here, access {n}")]
    shorter = got if longer is put else put
    places += [Place(shorter.span(0), f"only {n} accesses here")] if n else []
    raise StreamError(
        "FX301", f'"{buffer.name}" is written {writes} times but read {reads} times',
        at=places, hint="read every element exactly once",
    )  # fmt: skip


def _check_once(buffer: ir.Buffer, seen: Sequence, verb: str) -> None:
    values, first, counts = np.unique(seen.elements, return_index=True, return_counts=True)
    again = np.flatnonzero(counts > 1)
    if again.size:
        element = int(values[again[np.argmin(first[again])]])
        position = int(np.flatnonzero(seen.elements == element)[1])
        name = _name(buffer, element)
        raise StreamError(
            "FX301", f'{name} is {verb} more than once, so a FIFO would carry it more than once',
            at=Place(seen.span(position), f"{name} is {verb} again here"),
            hint="accumulate in a local buffer (buffer_at) and write each element once",
        )  # fmt: skip


def _name(buffer: ir.Buffer, element: int) -> str:
    rest, indices = element, list[int]()
    for extent in reversed(buffer.shape):
        rest, index = divmod(rest, extent)
        indices.insert(0, index)
    return f"{buffer.name}[{', '.join(map(str, indices))}]"


def _sequence(program: ir.Program, stmt: ir.Stmt, buffer: ir.Buffer, write: bool) -> Sequence:
    try:
        return sequence(program, stmt, buffer, write)
    except NotEnumerable as error:
        verb = "written" if write else "read"
        raise StreamError(
            "FX301", f'the order in which "{buffer.name}" is {verb} is not known: {error.reason}',
            at=[Place(error.span), Place(stmt.span, f"{verb} in this statement")],
            hint="go through it with plain loops",
        ) from None  # fmt: skip


def _same_nests(program: ir.Program, buffer: ir.Buffer, producer: ir.Stmt, consumer: ir.Stmt) -> bool:
    """One write and one read under equal loops with equal indices: equal order, whatever the extents."""
    if any(isinstance(n, ir.View) and n.buffer == buffer.name for n in walk((producer, consumer))):
        return False
    puts, gets = (
        [a for a in accesses((stmt,), program) if a.buffer == buffer.name] for stmt in (producer, consumer)
    )
    if len(puts) != 1 or len(gets) != 1:
        return False
    put, got = puts[0], gets[0]
    whole = len(put.indices) == len(got.indices) == len(buffer.shape)
    if not whole or put.guarded or got.guarded or len(put.loops) != len(got.loops):
        return False
    changing = written((producer, consumer), program)
    if any(_reads(loop.lower, changing) or _reads(loop.upper, changing) for loop in (*put.loops, *got.loops)):
        return False
    names: dict[str, ir.Expr] = {}
    for a, b in zip(put.loops, got.loops, strict=True):
        same = same_expr(a.lower, substitute(b.lower, names)) and same_expr(
            a.upper, substitute(b.upper, names)
        )
        if not same or a.step != b.step:
            return False
        names[b.var] = ir.LoopVar(a.var)
    if not all(
        same_expr(a, substitute(b, names)) and not _reads(a, changing) and not _reads(b, changing)
        for a, b in zip(put.indices, got.indices, strict=True)
    ):
        return False
    return not same_element_twice(put, (), put.loops, changing)


def _reads(expr: ir.Expr, changing: set[str]) -> bool:
    return any(isinstance(n, ir.Load) and n.buffer in changing for n in walk(expr))
