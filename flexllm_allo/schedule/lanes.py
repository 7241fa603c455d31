"""The primitive `vectorize`: iterations of a loop side by side, with the banks that this takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

from ..analysis.accesses import accesses, written
from ..analysis.affine import Affine, Quotient, Symbol, affine
from ..errors import Place, ScheduleError, ScheduleValueError
from ..ir import nodes as ir
from ..ir.dtypes import UInt
from ..ir.simplify import value_of
from ..ir.walk import Node, buffers, rewrite, statements
from . import loops
from .loops import Axis
from .memory import spread
from .names import LoopSite, LoopWrapper, Path, bands, find_loop
from .nests import extent

_PORTS = 2
"""Accesses to a bank in a cycle."""
_SMALL = 4
"""Most bits of a computed part of an index that may have any value: so many banks are kept for it."""


def vectorize(
    program: ir.Program, func: str, axis: Axis, lanes: int = 0
) -> tuple[ir.Program, LoopWrapper | None]:
    """Run iterations of a loop side by side on `lanes` lanes, and bank the arrays that these reach.

    The loop is split by the largest divisor of its extent that is at most `lanes`, the lanes become the
    innermost loop of their nest and are unrolled.  Arrays get so many banks that every lane finds its
    elements in one of its own: Complete where the lanes take a whole dimension, else Cyclic; where
    no other number would do, two elements share the ports of a bank.  Lanes of
    several loops are counted together, and banks an array has already are kept (the least common
    multiple of both).  What `pack` put in one word, and an index that is no linear form, needs no banks
    or leaves them to `partition`.

    Args:
        axis: the loop.
        lanes: how many at most; 0 for all iterations.

    Returns:
        The loop over groups of lanes; None if the lanes take all iterations at once.

    Raises:
        ScheduleValueError: FX204, a negative number.
        ScheduleError: FX205, the extent is not constant, the loop is pipelined or unrolled already, holds
            loops that are no perfect nest, or its array is in blocks; FX203, the lanes cannot become the
            innermost loop.

    Example:
        >>> s = allo.customize(gemm)
        >>> s.vectorize("j", 2)
        LoopWrapper(gemm:S_i_j_k_0.j.outer)
        >>> s.pipeline()
        >>> print(s)
        def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
            # B: partition(cyclic, dim=2, factor=2)
            # C: partition(cyclic, dim=2, factor=2)
            C: int32[6, 4]
            for _0 in range(6):
                for _1 in range(2):  # pipeline II=1
                    for _1_inner in range(2):  # unroll
                        C[_0, _1 * 2 + _1_inner] = 0
            for i in range(6, name="S_i_j_k_0"):
                for j_outer in range(2):
                    for k in range(5):  # pipeline II=1
                        for j_inner in range(2):  # unroll
                            C[i, j_outer * 2 + j_inner] += A[i, k] * B[k, j_outer * 2 + j_inner]
            return C
    """
    site = find_loop(program, func, axis)
    count = _check(site, lanes)
    wide = count if lanes == 0 else max((n for n in range(1, lanes + 1) if count % n == 0), default=1)
    around = LoopWrapper(site.function.name, site.band, site.name)
    if wide == 1 < count:
        return program, around
    path = site.path
    if wide < count:
        program = loops.split(program, func, around, wide)
        around, path = _wrapper(program, site, path), (*path, ("body", 0))
    name = _wrapper(program, site, path)
    inner = _sequential(program, site, path)
    if inner:
        program = loops.reorder(program, func, *inner, name)
    program = loops.unroll(program, func, name)
    return _banked(program, find_loop(program, func, name)), around if wide < count else None


def _check(site: LoopSite, lanes: int) -> int:
    """The extent of a loop that may run on lanes."""
    loop, count = site.loop, extent(site.loop)
    at = Place(loop.span, f'loop "{site.name}"')
    if isinstance(lanes, bool) or lanes < 0:
        message = f"lanes must be an integer of at least 0, got {lanes!r}"
        raise ScheduleValueError("FX204", message, at, "the number of lanes; 0 for all iterations")
    reason, hint = "", ""
    if count is None:
        reason, hint = "has no constant extent", "split it, and run the inner loop on lanes"
    elif loop.attrs.pipeline is not None or loop.attrs.unroll is not None:
        reason, hint = "has a directive already", "vectorize first, then pipeline what is left"
    elif not _is_nest(loop):
        reason = "holds more than one nest of loops"
        hint = "lanes are innermost: vectorize the loops inside, or unfold it into processes"
    if count is None or reason:
        message = f'loop "{site.name}" {reason} and cannot run on lanes'
        raise ScheduleError("FX205", message, at, hint)
    return count


def _is_nest(loop: ir.For) -> bool:
    """Whether the loops inside that take turns are one perfect nest around everything."""
    body = loop.body
    while len(body) == 1 and isinstance(body[0], ir.For):
        body = body[0].body
    return not any(isinstance(n, ir.For) and not n.hidden and n.attrs.unroll != 0 for n in statements(body))


def _wrapper(program: ir.Program, site: LoopSite, path: Path) -> LoopWrapper:
    """The loop that is now at a path of the band."""
    found = bands(program.function(site.function.name))[site.band]
    return LoopWrapper(site.function.name, site.band, next(s.name for s in found if s.path == path))


def _sequential(program: ir.Program, site: LoopSite, path: Path) -> list[LoopWrapper]:
    """The loops inside that one, down to the last that is not unrolled."""
    found = {s.path: s.loop for s in bands(program.function(site.function.name))[site.band]}
    inside: list[Path] = []
    while (path := (*path, ("body", 0))) in found:
        inside.append(path)
    while inside and found[inside[-1]].attrs.unroll == 0:
        inside.pop()
    return [_wrapper(program, site, p) for p in inside]


# ---------------------------------------------------------------------------------------- banks


def _banked(program: ir.Program, site: LoopSite) -> ir.Program:
    """The program with the banks that the lanes of an unrolled loop need."""
    function, table = site.function, buffers(site.function)
    positions: dict[tuple[str, int], list[set[int]]] = {}
    for (buffer, dim, _), found in _positions(program, site).items():
        positions.setdefault((buffer, dim), []).append(found)
    for (buffer, dim), groups in positions.items():
        program = spread(program, function.name, buffer, dim, _factor(table[buffer].shape[dim - 1], groups))
    return program


def _factor(size: int, groups: list[set[int]]) -> int:
    """The least number of cyclic banks that keeps the positions of every group apart, or the whole dimension.

    Where that is more than twice what the lanes reach, such as for both halves of a dimension, two of them
    share a bank: it has two ports.
    """
    divisors = [f for f in range(1, size) if size % f == 0]
    meeting = 1 if 2 * max(map(len, groups)) > size else _PORTS
    for most in range(1, meeting + 1):
        for factor in divisors:
            if all(max(Counter(p % factor for p in found).values()) <= most for found in groups):
                return factor
    return size


_Group = tuple[str, int, Affine]


def _positions(program: ir.Program, site: LoopSite) -> dict[_Group, set[int]]:
    """The elements along a dimension of an array that all lanes reach together, counted from a common one."""
    table, changing = buffers(site.function), written((site.loop,), program)
    free = {n for n in changing if not table[n].shape and _values(table[n])}
    known = _assigned(site.function)
    out: dict[_Group, set[int]] = {}
    for access in accesses((site.loop,), program, site.outer):
        lanes = {p.var: _range(p) for p in access.loops if p.attrs.unroll == 0}
        for dim, index in enumerate(access.indices, 1):
            form = affine(_resolved(index, known), changing - free)
            if form is None or table[access.buffer].is_stream or site.loop.var not in form.variables():
                continue
            found = _spread_of(form, lanes, {n: _values(table[n]) for n in free})
            if found is not None:
                rest, reached = found
                out.setdefault((access.buffer, dim, rest), set()).update(reached)
    return out


def _spread_of(
    form: Affine, lanes: dict[str, range], free: dict[str, range]
) -> tuple[Affine, set[int]] | None:
    """What all lanes have in common of an index, and the values of the rest; None where words decide it."""
    parts: list[Sequence[int]] = []
    common = Affine()
    for term, factor in form.terms:
        if isinstance(term, Quotient) and term.value.variables() & set(lanes):
            return None
        values = lanes.get(term) if isinstance(term, str) else None
        if isinstance(term, Symbol):
            values = free.get(term.name)
        if values is None:
            common += Affine(((term, factor),))
        else:
            parts.append([factor * v for v in values])
    return common, {form.constant + sum(chosen) for chosen in product(*parts)}


def _range(loop: ir.For) -> range:
    lower, upper = value_of(loop.lower), value_of(loop.upper)
    return range(lower or 0, upper if upper is not None else 1, loop.step)


def _values(buffer: ir.Buffer) -> range:
    """All values of a small unsigned scalar, nothing for other buffers."""
    small = isinstance(buffer.dtype, UInt) and buffer.dtype.bits <= _SMALL
    return range(1 << buffer.dtype.bits) if small else range(0)


def _assigned(function: ir.Function) -> dict[str, ir.Expr]:
    """The values of scalars that are assigned once."""
    stores = [n for n in statements(function.body) if isinstance(n, ir.Store) and not n.indices]
    times = Counter(s.buffer for s in stores)
    return {s.buffer: s.value for s in stores if times[s.buffer] == 1}


def _resolved(index: ir.Expr, known: dict[str, ir.Expr]) -> ir.Expr:
    """An index with such scalars replaced by what they are."""

    def visit(node: Node) -> Node | None:
        if not isinstance(node, ir.Load) or node.indices or node.buffer not in known:
            return None
        others = {name: value for name, value in known.items() if name != node.buffer}
        return _resolved(known[node.buffer], others)

    return rewrite(index, visit)


__all__ = ["vectorize"]
