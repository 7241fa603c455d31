"""The primitive `store_at`: a local array inside a loop, as much of it as an iteration uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..analysis.accesses import Access, accesses
from ..analysis.affine import Affine, affine
from ..analysis.interval import Range, hull, ranges
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.simplify import binary, const, simplify
from ..ir.walk import Node, rewrite, substitute, walk
from .buffers import Target, find_buffer
from .initial import is_fill
from .loops import Axis
from .names import LoopSite, find_loop, replace_at
from .nests import extent


def store_at(program: ir.Program, func: str, target: Target, axis: Axis) -> ir.Program:
    """Keep a local array inside a loop, as much of it as one iteration uses (Halide's `store_at`).

    Iterations must use different parts of it.  In a dataflow loop the part then has a buffer that is written
    and one that is read.  What the array was filled with goes into the loop, unless that writes it first.

    Args:
        target: the array.
        axis: the loop that does everything with it.

    Raises:
        ScheduleError: FX205, the array is used outside the loop or passed to a function, is packed or in
            blocks, or iterations share elements of it (the access is shown).

    Example:
        >>> s = allo.customize(producer_consumer)
        >>> loops = s.get_loops()
        >>> s.compute_at(loops.S_i_0.i, loops.S_i_1.i)
        >>> s.store_at(s.B, "i")
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_1"):
                B: int32[1]
                B[0] = A[i] + 1
                C[i] = B[0] * 2
            return C
    """
    function, buffer = find_buffer(program, func, target)
    site = find_loop(program, func, axis)
    if function.name != site.function.name:
        message = f'"{buffer.name}" belongs to "{function.name}", the loop to "{site.function.name}"'
        raise _refuse(message, site)
    fills = _checked(program, site, buffer)
    inside = [a for a in accesses((site.loop,), program) if a.buffer == buffer.name]
    parts = [_part(site, buffer, inside, dim) for dim in range(len(buffer.shape))]
    if not any(part.moves for part in parts):
        message = f'iterations of "{site.name}" use the same elements of "{buffer.name}"'
        raise _refuse(message, site, [Place(inside[0].span)] if inside else [])
    shape = tuple(part.size for part in parts)
    local = replace(buffer, shape=shape, banks=tuple(_banks(buffer, shape)))
    origin = {n.var: n.lower for n in walk(site.loop.body) if isinstance(n, ir.For) and extent(n) == 1}
    origin[site.loop.var] = const(0)
    body = rewrite(site.loop.body, lambda node: _moved(node, origin, buffer.name, parts))
    starts = [_resized(f, local) for f in fills[-1:] if not _written_first(program, site, body, local)]
    loop = replace(site.loop, body=(ir.Alloc(local, span=buffer.span), *starts, *body))
    function = replace_at(site.function, site.path, (loop,))
    gone = [s for s in function.body if s in fills or _declares(s, buffer.name)]
    return program.with_function(
        replace(function, body=tuple(s for s in function.body if not any(s is g for g in gone)))
    )


@dataclass(frozen=True)
class _Part:
    """What an iteration uses along a dimension: `size` elements from `first` on, counted from iteration 0."""

    size: int
    first: int = 0
    moves: bool = False


def _refuse(message: str, site: LoopSite, places: Sequence[Place] = (), hint: str = "") -> ScheduleError:
    return ScheduleError("FX205", message, [*places, Place(site.loop.span, f'loop "{site.name}"')], hint)


def _declares(stmt: ir.Stmt, name: str) -> bool:
    return isinstance(stmt, ir.Alloc) and stmt.buffer.name == name


def _checked(program: ir.Program, site: LoopSite, buffer: ir.Buffer) -> list[ir.Stmt]:
    """The fills of the array, if nothing else but the loop uses it."""
    name, body = buffer.name, site.function.body
    if not any(_declares(s, name) and isinstance(s, ir.Alloc) and s.init is None for s in body):
        raise _refuse(f'"{name}" is no array that the function makes', site, hint="a parameter stays whole")
    if (
        buffer.is_stream
        or not buffer.shape
        or buffer.words > 1
        or any(b.kind == "block" for b in buffer.banks)
    ):
        message = f'"{name}" is a FIFO, a scalar, packed, or in blocks'
        raise _refuse(message, site, [Place(buffer.span)], "partition and pack what the loop keeps")
    whole = [s for s in body if any(a.buffer == name for a in accesses((s,), program))]
    fills = [s for s in whole if is_fill(s)]
    used = {id(n) for n in walk(site.loop)}
    for stmt in whole:
        outside = (n for n in walk(stmt) if id(n) not in used and isinstance(n, ir.Load | ir.Store | ir.View))
        for node in outside if stmt not in fills else ():
            if node.buffer == name:
                raise _refuse(
                    f'"{name}" is used outside loop "{site.name}" as well', site, [Place(node.span)]
                )
    for node in walk(site.loop):
        if isinstance(node, ir.View) and node.buffer == name:
            raise _refuse(f'"{name}" is passed to a function', site, [Place(node.span)])
    return fills


def _banks(buffer: ir.Buffer, shape: tuple[int, ...]) -> Iterator[ir.Bank]:
    """The banks of the array, of a part of that shape."""
    for bank in buffer.banks:
        size = shape[bank.dim - 1]
        if bank.kind == "complete" or bank.factor < size:
            yield bank
        elif size > 1:
            yield replace(bank, kind="complete", factor=0)


def _part(site: LoopSite, buffer: ir.Buffer, inside: Sequence[Access], dim: int) -> _Part:
    """What one iteration uses along a dimension."""
    found: list[Range] = []
    steps: set[int] = set()
    for access in inside:
        form = affine(access.indices[dim])
        step = dict(form.terms).get(site.loop.var, 0) if form else 0
        known = ranges(access.loops[1:])
        rest = form - Affine(((site.loop.var, step),)) if form and step else form
        reached = _reached(rest, known or {}) if rest else None
        steps.add(step)
        if step and reached is None:
            message = f'what an iteration of "{site.name}" uses of "{buffer.name}" is not known'
            raise _refuse(message, site, [Place(access.span)])
        found += [reached] if reached else []
    if steps <= {0}:
        return _Part(buffer.shape[dim])
    low, high = hull(found)
    if len(steps) > 1 or high - low >= min(steps) * site.loop.step:
        message = f'iterations of "{site.name}" share elements of "{buffer.name}"'
        raise _refuse(message, site, [Place(a.span, a.verb) for a in inside[:1]], "split it by what they use")
    return _Part(high - low + 1, low, True)


def _reached(form: Affine, known: dict[str, Range]) -> Range | None:
    """The values of a form of loop variables."""
    low = high = form.constant
    for term, factor in form.terms:
        if not isinstance(term, str) or term not in known:
            return None
        ends = [factor * end for end in known[term]]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _moved(node: Node, origin: dict[str, ir.Expr], name: str, parts: Sequence[_Part]) -> Node | None:
    """An access to the array as one to the part; `origin` is where the loops that do not count begin."""
    if not isinstance(node, ir.Load | ir.Store) or node.buffer != name:
        return None
    indices = tuple(
        simplify(binary("-", substitute(index, origin), part.first)) if part.moves else index
        for index, part in zip(node.indices, parts, strict=True)
    )
    return replace(node, indices=indices)


def _resized(fill: ir.Stmt, local: ir.Buffer) -> ir.Stmt:
    """A fill of the part instead of the whole."""
    (store,) = (n for n in walk(fill) if isinstance(n, ir.Store))
    sizes = {i.name: n for i, n in zip(store.indices, local.shape, strict=True) if isinstance(i, ir.LoopVar)}

    def visit(stmt: ir.Stmt) -> ir.Stmt:
        if not isinstance(stmt, ir.For):
            return stmt
        return replace(stmt, upper=const(sizes[stmt.var]), body=tuple(visit(s) for s in stmt.body))

    return visit(fill)


def _written_first(program: ir.Program, site: LoopSite, body: tuple[ir.Stmt, ...], local: ir.Buffer) -> bool:
    """Whether the first nest of an iteration that uses the part writes all of it and reads nothing."""
    uses = [a for a in accesses(body, program) if a.buffer == local.name]
    first = uses[0]
    names = [i.name for i in first.indices if isinstance(i, ir.LoopVar)]
    known = ranges(first.loops) or {}
    whole = [known.get(name) for name in names] == [(0, size - 1) for size in local.shape]
    if not (first.write and whole) or first.guarded or len(set(names)) < len(local.shape):
        return False
    nest = next(loop for loop in first.loops if loop.var in names)
    return sum(a.buffer == local.name for a in accesses(nest.body, program)) == 1


__all__ = ["store_at"]
