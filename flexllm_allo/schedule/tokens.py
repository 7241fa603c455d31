"""Several elements per token: lanes that write, or read, an array together put, or get, one token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

from ..analysis.accesses import accesses
from ..errors import Place, ScheduleValueError, Span, StreamError
from ..ir import nodes as ir
from ..ir.simplify import const, value_of
from ..ir.walk import Node, rewrite, walk
from .names import sub_bodies
from .nests import extent

Lanes = int | tuple[int, int]
"""Elements per token, of the writer and the reader if these differ; 0: as many as each has lanes."""


def widths(
    program: ir.Program, buffer: ir.Buffer, producer: ir.Stmt, consumer: ir.Stmt, lanes: Lanes
) -> tuple[int, int]:
    """Elements of the tokens that the producer puts, and of those that the consumer gets.

    Raises:
        ScheduleValueError: FX204, no numbers of lanes.
        StreamError: FX304, lanes and tokens do not fit.
    """
    given = lanes if isinstance(lanes, tuple) else (lanes, lanes)
    _natural(buffer, lanes, given)
    sites = [
        list(_sites(program, (stmt,), buffer.name, write))
        for stmt, write in ((producer, True), (consumer, False))
    ]
    made = [n or min((s.lanes for s in found), default=1) for n, found in zip(given, sites, strict=True)]
    written, read = made
    _dividing(buffer, written, read)
    for asked, n, found, verb in zip(given, made, sites, ("written", "read"), strict=True):
        for site in found:
            if (n > 1 and site.lanes != n) or (asked == 0 and site.together != n):
                raise _mismatch(buffer, site, n, verb)
    return written, read


def lanes_of(loop: ir.For, name: str, write: bool) -> int:
    """How many elements of an array the iterations of an unrolled loop access, one each; else 1."""
    count = extent(loop)
    if loop.attrs.unroll != 0 or count is None or value_of(loop.lower) != 0 or loop.step != 1:
        return 1
    found = [a for a in accesses(loop.body) if a.buffer == name]
    single = len(found) == 1 and found[0].write == write and not found[0].loops and not found[0].guarded
    passed = any(isinstance(n, ir.View) and n.buffer == name for n in walk(loop.body))
    return max(count, 1) if single and not passed else 1


def wide_fifo(array: ir.Buffer, lanes: int, depth: int) -> ir.Buffer:
    """A FIFO for an array's elements, so many per token; a depth of -1 is room for all of them."""
    token = (lanes,) if lanes > 1 else ()
    depth = max(1, prod(array.shape) // lanes) if depth == -1 else depth
    return ir.Buffer(array.name, array.dtype, (), depth=depth, token=token, span=array.span)


def _word(fifo: ir.Buffer, name: str, span: Span) -> ir.Buffer:
    """Registers for the elements of one token."""
    return ir.Buffer(name, fifo.dtype, fifo.token, banks=(ir.Bank("complete", 1),), span=span)


def gathered(
    loop: ir.For, name: str, fifo: ir.Buffer, keep: bool, fresh: Callable[[str], str]
) -> Iterator[ir.Stmt]:
    """A loop of lanes that store to an array: they fill a token instead, which is put after it.

    Args:
        keep: they store as well.
        fresh: makes a name that is not taken.
    """
    word, lane = _word(fifo, fresh(f"{name}_token"), loop.span), (ir.LoopVar(loop.var),)

    def filled(node: Node) -> Node | tuple[Node, ...] | None:
        if not isinstance(node, ir.Store) or node.buffer != name:
            return None
        stored = replace(node, value=ir.Load(word.name, lane, fifo.dtype, node.value.span))
        made = ir.Store(word.name, lane, node.value, node.span)
        return (made, stored) if keep else made

    yield ir.Alloc(word, span=loop.span)
    yield replace(loop, body=rewrite(loop.body, filled))
    yield ir.Put(fifo.name, (), ir.View(word.name), loop.span)


def scattered(loop: ir.For, name: str, fifo: ir.Buffer, fresh: Callable[[str], str]) -> Iterator[ir.Stmt]:
    """A loop of lanes that load from an array: from a token instead, which is taken before it."""
    word, lane = _word(fifo, fresh(f"{name}_token"), loop.span), (ir.LoopVar(loop.var),)

    def taken(node: Node) -> Node | None:
        return replace(node, buffer=word.name, indices=lane) if _loads(node, name) else None

    yield ir.Alloc(word, span=loop.span)
    yield ir.Get(word.name, fifo.name, (), loop.span)
    yield replace(loop, body=rewrite(loop.body, taken))


def as_process(stmt: ir.Stmt, made: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """What became of a statement of a region, as one: lanes and their token in a loop that runs once."""
    if not isinstance(stmt, ir.For) or stmt.attrs.unroll != 0 or len(made) == 1:
        return made
    body = tuple(replace(s, band=None) if isinstance(s, ir.For) else s for s in made)
    return (ir.For(f"{stmt.var}.outer", const(0), const(1), body, band=stmt.band, span=stmt.span),)


def _loads(node: Node, name: str) -> bool:
    return isinstance(node, ir.Load) and node.buffer == name


# ------------------------------------------------------------------------------ what lanes there are


@dataclass(frozen=True)
class _Site:
    """An access to the array: the innermost loop around it, and how many lanes that is.

    `together` are the lanes of all unrolled loops around it.
    """

    lanes: int
    together: int
    span: Span
    loop: ir.For | None
    function: str


def _sites(
    program: ir.Program,
    body: tuple[ir.Stmt, ...],
    name: str,
    write: bool,
    around: tuple[ir.For, ...] = (),
    function: str = "",
) -> Iterator[_Site]:
    """All writes (or reads) of an array, also in the functions it is passed to."""
    for stmt in body:
        lanes = lanes_of(stmt, name, write) if isinstance(stmt, ir.For) else 1
        inner, inside = sub_bodies(stmt), (*around, stmt) if isinstance(stmt, ir.For) else around
        head: ir.Stmt = stmt if lanes > 1 else replace(stmt, **{field: () for field in inner})
        if isinstance(stmt, ir.Call):
            callee = program.function(stmt.func)
            for arg, param in zip(stmt.args, callee.params, strict=True):
                if isinstance(arg, ir.View) and arg.buffer == name:
                    yield from _sites(program, callee.body, param.name, write, around, callee.name)
            head = replace(stmt, args=tuple(a for a in stmt.args if not isinstance(a, ir.View)))
        for access in accesses((head,)):
            if access.buffer == name and access.write == write:
                loops = inside if lanes > 1 else around
                yield _Site(lanes, _together(loops), access.span, loops[-1] if loops else None, function)
        if lanes == 1:
            for field in inner:
                yield from _sites(program, getattr(stmt, field), name, write, inside, function)


def _together(loops: tuple[ir.For, ...]) -> int:
    """How many iterations of unrolled loops there are at once."""
    factors = (loop.attrs.unroll or extent(loop) or 1 for loop in loops if loop.attrs.unroll is not None)
    return prod(factors)


# ----------------------------------------------------------------------------------------- refusals


def _natural(buffer: ir.Buffer, lanes: Lanes, given: tuple[int, ...]) -> None:
    if len(given) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in given):  # pyright: ignore
        raise ScheduleValueError(
            "FX204", f"lanes must be one or two integers of at least 0, got {lanes!r}",
            at=buffer.span, hint="elements per token; 0 for as many as there are lanes",
        )  # fmt: skip


def _dividing(buffer: ir.Buffer, written: int, read: int) -> None:
    """Refuse widths of which neither divides the other."""
    narrow, wide = sorted((written, read))
    if wide % narrow:
        near = _nearest(read, 2 * wide, lambda n: n % written == 0 or written % n == 0)
        raise StreamError(
            "FX304", f'"{buffer.name}" cannot go from tokens of {written} to tokens of {read} elements',
            at=buffer.span, hint=f"one is a multiple of the other: next to {read} the reader may take {near}",
        )  # fmt: skip


def _mismatch(buffer: ir.Buffer, site: _Site, wanted: int, verb: str) -> StreamError:
    """The refusal of an access that is on other lanes, or on none."""
    token = f"its tokens hold {wanted} elements" if wanted > 1 else "its tokens hold one element"
    places = [Place(site.span, f"{verb} here")]
    if site.loop is None:
        message, hint = (
            f'"{buffer.name}" is {verb} outside of loops, {token}',
            "lanes are iterations of a loop",
        )
        return StreamError("FX304", message, at=places, hint=hint)
    places.append(Place(site.loop.span, f'loop "{site.loop.var}"'))
    if site.lanes == wanted:
        message = (
            f'"{buffer.name}" is {verb} on {site.together} lanes, but {site.lanes} in the innermost loop'
        )
        hint = "a token holds what iterations of one unrolled loop access, one element each"
    elif site.lanes > 1:
        message = f'"{buffer.name}" is {verb} on {site.lanes} lanes, {token}'
        hint = f"lanes={site.lanes} on this side, or put the loop on {wanted} lanes"
    else:
        message = f'"{buffer.name}" is {verb} element by element, {token}'
        hint = _lanes_missing(site, site.loop, wanted)
    return StreamError("FX304", message, at=places, hint=hint)


def _lanes_missing(site: _Site, loop: ir.For, wanted: int) -> str:
    count, where = extent(loop), f' of "{site.function}"' if site.function else ""
    if count is not None and count % wanted:
        near = _nearest(wanted, count, lambda n: count % n == 0)
        return f"{count} iterations do not fit {wanted} lanes, the nearest are {near}"
    return f'first put the innermost loop{where} on lanes: vectorize("{loop.var}", {wanted})'


def _nearest(wanted: int, most: int, fits: Callable[[int], bool]) -> str:
    """The numbers around a number of lanes that fit."""
    below = next(n for n in range(min(wanted, most), 0, -1) if fits(n))
    above = next((n for n in range(wanted, most + 1) if fits(n)), below)
    return f"{below} or {above}" if below != above else f"{below}"


__all__ = ["Lanes", "as_process", "gathered", "lanes_of", "scattered", "wide_fifo", "widths"]
