"""The primitive `flatten`: what a loop does becomes one perfect nest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby

from ..analysis.accesses import Access, accesses, written
from ..analysis.affine import Affine, affine
from ..analysis.dependence import conflicts, largest_delay
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.dtypes import BOOL
from ..ir.simplify import simplify, value_of, var
from ..ir.walk import Node, rewrite, substitute, walk
from .fills import fill_banks
from .loops import Axis
from .names import LoopSite, find_loop, replace_at
from .nests import clear_of, extent, uses


def flatten(program: ir.Program, func: str, axis: Axis) -> ir.Program:
    """Make what a loop does one perfect nest, which is one pipeline however often its inner loops run.

    The last nest in the body takes in those before it, if they run over the same iterations; statements
    and unrolled loops run in its first iteration.  So a pipeline is filled once, not once for every
    nest and every iteration of the loop.  What an array of the loop's own holds for a later iteration
    than its own no longer exists then: it shrinks to what one iteration needs.

    Args:
        axis: the loop.  Unroll lanes inside first, and pipeline afterwards.  Where all loops inside are
            unrolled, it is a nest already.

    Raises:
        ScheduleError: FX205, the loop does not end in a nest of constant extent, or holds calls or loops
            that cannot run in its first iteration; FX203, an iteration needs what a later one makes.

    Example:
        >>> s = allo.customize(rows)
        >>> print(s)
        def rows(A: int32[6, 4], n: int32) -> int32[6, 4]:
            B: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    B[_0, _1] = 0
            for i in range(n, name="row"):
                scale: int32
                scale = A[i, 0]
                double: int32[4]
                for j in range(4, name="S_j_0"):
                    double[j] = A[i, j] * 2
                for k in range(4, name="S_k_1"):
                    B[i, k] = double[k] * scale
            return B
        >>> s.flatten("i")
        >>> print(s)
        def rows(A: int32[6, 4], n: int32) -> int32[6, 4]:
            B: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    B[_0, _1] = 0
            for i in range(n, name="row"):
                scale: int32
                for k in range(4, name="S_k_1"):
                    double: int32[1]
                    if k == 0:
                        scale = A[i, 0]
                    double[0] = A[i, k] * 2
                    B[i, k] = double[0] * scale
            return B
    """
    site = find_loop(program, func, axis)
    program = fill_banks(program, site.function.name)
    site = find_loop(program, func, axis)
    if not any(isinstance(n, ir.While | ir.Call) or _takes_turns(n) for n in walk(site.loop.body)):
        return program
    parts = _parts(site)
    _check(program, site, parts)
    body = _nest(parts)
    made = replace(site.loop, body=_folded(program, site, parts, body))
    return program.with_function(replace_at(site.function, site.path, (made,)))


@dataclass(frozen=True)
class _Part:
    """A statement of the loop: `loops` are those of a nest that runs over the iterations of the last one.

    One without any runs in the first iteration.
    """

    stmt: ir.Stmt
    loops: tuple[ir.For, ...] = ()


def _refuse(site: LoopSite, code: str, why: str, places: Sequence[Place], hint: str) -> ScheduleError:
    message = f'loop "{site.name}" cannot become one nest: {why}'
    return ScheduleError(code, message, [*places, Place(site.loop.span, f'loop "{site.name}"')], hint)


def _parts(site: LoopSite) -> list[_Part]:
    """The statements but for what only brings arrays into being."""
    stmts = [s for s in site.loop.body if not isinstance(s, ir.Alloc) or s.init is not None]
    last = stmts[-1] if stmts else site.loop
    target = _sequential(last)
    if not target or any(not extent(loop) for loop in target):
        place = Place(last.span, "it ends here" if stmts else "")
        hint = "the last statement is the nest that takes in the others"
        raise _refuse(site, "FX205", "it does not end in a nest of constant extent", [place], hint)
    return [_part(site, stmt, target) for stmt in stmts]


def _sequential(stmt: ir.Stmt) -> tuple[ir.For, ...]:
    """The perfectly nested loops of a nest that are not unrolled, outermost first."""
    loops: list[ir.For] = []
    while isinstance(stmt, ir.For) and stmt.attrs.unroll is None and not stmt.attrs.dataflow:
        loops.append(stmt)
        if len(stmt.body) != 1:
            break
        stmt = stmt.body[0]
    return tuple(loops)


def _part(site: LoopSite, stmt: ir.Stmt, target: tuple[ir.For, ...]) -> _Part:
    mine = _sequential(stmt)[: len(target)]
    if mine and list(map(_bounds, mine)) == list(map(_bounds, target)):
        return _Part(stmt, mine)
    turns = next((n for n in walk(stmt) if isinstance(n, ir.While | ir.Call) or _takes_turns(n)), None)
    if turns is not None:
        nest = " and ".join(f'"{loop.var}"' for loop in target)
        why = f"it holds what cannot run in one iteration of {nest}"
        hint = "unroll it, or give both nests the same extents"
        raise _refuse(site, "FX205", why, [Place(turns.span, "this takes turns")], hint)
    return _Part(stmt)


def _bounds(loop: ir.For) -> tuple[int | None, int | None, int]:
    return value_of(loop.lower), value_of(loop.upper), loop.step


def _takes_turns(node: Node) -> bool:
    return isinstance(node, ir.For) and node.attrs.unroll != 0


# ---------------------------------------------------------------------------------------- legality


def _check(program: ir.Program, site: LoopSite, parts: list[_Part]) -> None:
    """Every iteration has what it needs: no part comes before another one whose elements it needs."""
    changing = written(site.loop.body, program)
    found = [uses(program, site.function, part.stmt) for part in parts]
    for first, earlier in enumerate(parts):
        for second in range(first + 1, len(parts)):
            later = parts[second]
            for a in found[first] if earlier.loops else ():
                for b in found[second]:
                    if conflicts(a, b) and _comes_too_late(a, b, earlier, later, changing):
                        raise _too_late(site, a, b)


def _comes_too_late(a: Access, b: Access, earlier: _Part, later: _Part, changing: set[str]) -> bool:
    """Whether an iteration of the earlier part would touch an element after the later part has."""
    if not later.loops:
        return True
    for level in range(len(later.loops)):
        if largest_delay(a, b, earlier.loops, later.loops, [0] * level, 1, changing):
            return True
    return False


def _too_late(site: LoopSite, a: Access, b: Access) -> ScheduleError:
    places = [Place(a.span, f'"{a.buffer}" is {a.verb} here by later iterations too'),
              Place(b.span, f"and {b.verb} here after all of them")]  # fmt: skip
    hint = "keep the nests apart, or bring their loops into the same order"
    return _refuse(site, "FX203", f'a dependence on "{a.buffer}" forbids it', places, hint)


# ------------------------------------------------------------------------------------ the new nest


def _nest(parts: list[_Part]) -> tuple[ir.Stmt, ...]:
    """What an iteration of the last nest does."""
    target = parts[-1].loops
    body: list[ir.Stmt] = []
    for once, group in groupby(parts, key=lambda part: not part.loops):
        if once:
            body += _at_first(target, tuple(part.stmt for part in group))
            continue
        for part in group:
            body += _each(part, target, last=part is parts[-1])
    return tuple(body)


def _each(part: _Part, target: tuple[ir.For, ...], last: bool) -> tuple[ir.Stmt, ...]:
    """What a nest does in an iteration of the last one."""
    names: dict[str, ir.Expr] = {p.var: var(t.var, t.span) for p, t in zip(part.loops, target, strict=True)}
    body = part.loops[-1].body
    return simplify(substitute(body if last else clear_of(body, {t.var for t in target}), names))


def _at_first(target: tuple[ir.For, ...], body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """Statements under the condition that it is the first iteration of the nest."""
    tests: list[ir.Expr] = [
        ir.Binary("==", var(t.var, t.span), t.lower, BOOL, t.span) for t in target if extent(t) != 1
    ]
    if not tests:
        return body
    whole = reduce(lambda a, b: ir.Logic("and", a, b, BOOL, b.span), tests)
    return (ir.If(whole, body, span=body[0].span),)


def _folded(
    program: ir.Program, site: LoopSite, parts: list[_Part], body: tuple[ir.Stmt, ...]
) -> tuple[ir.Stmt, ...]:
    """The body of the loop, its arrays in the nest where an iteration needs only elements of its own."""
    target = parts[-1].loops
    once = {a.buffer for p in parts if not p.loops for a in accesses((p.stmt,), program)}
    outside: list[ir.Stmt] = []
    inside: list[ir.Stmt] = []
    for stmt in site.loop.body:
        if not isinstance(stmt, ir.Alloc) or stmt.init is not None:
            continue
        small = None if stmt.buffer.name in once else _own(program, stmt.buffer, body, target)
        if small is None:
            outside.append(stmt)
            continue
        inside.append(replace(stmt, buffer=small))
        body = _moved(body, small.name, target)
    new = (*inside, *body)
    for loop in reversed(target):
        attrs = replace(loop.attrs, parallel=False)
        new = (replace(loop, body=new, attrs=attrs),)
    return (*outside, *new)


def _own(
    program: ir.Program, buffer: ir.Buffer, body: tuple[ir.Stmt, ...], target: tuple[ir.For, ...]
) -> ir.Buffer | None:
    """An array as large as what one iteration touches; None if iterations share elements."""
    uses = [a for a in accesses(body, program) if a.buffer == buffer.name]
    if buffer.is_stream or not buffer.shape or not uses:
        return None
    steps = {loop.var: loop.step for loop in target}
    apart: set[str] = set()
    shape: list[int] = []
    for dim in range(len(buffer.shape)):
        forms = [affine(a.indices[dim]) if dim < len(a.indices) else None for a in uses]
        reach = [None if f is None else _reach(f, set(steps), a) for f, a in zip(forms, uses, strict=True)]
        if any(r is None or r[:1] != (reach[0] or ())[:1] for r in reach):
            return None
        moving, _, _ = reach[0] or ((), 0, 0)
        lowest, highest = min(r[1] for r in reach if r), max(r[2] for r in reach if r)
        lowest, highest = _from_first(moving, target, lowest), _from_first(moving, target, highest)
        if len(moving) > 1 or lowest < 0:
            return None
        for name, factor in moving:
            if abs(factor) * steps[name] <= highest - lowest:
                return None
            apart.add(name)
        shape.append(highest + 1)
    if apart != {loop.var for loop in target if extent(loop) != 1}:
        return None
    banks = tuple(ir.Bank("complete", dim) for dim, size in enumerate(shape, 1) if size > 1)
    return replace(buffer, shape=tuple(shape), banks=banks)


_Moving = tuple[tuple[str, int], ...]


def _reach(form: Affine, steps: set[str], access: Access) -> tuple[_Moving, int, int] | None:
    """What an index is made of: how it follows the loops of the nest, and the values of the rest."""
    lanes = {loop.var: _bounds(loop) for loop in access.loops}
    moving: list[tuple[str, int]] = []
    low = high = form.constant
    for term, factor in form.terms:
        if isinstance(term, str) and term in steps:
            moving.append((term, factor))
            continue
        lower, upper, step = lanes.get(term, (None, None, 1)) if isinstance(term, str) else (None, None, 1)
        if lower is None or upper is None or upper <= lower:
            return None
        ends = sorted((factor * lower, factor * (lower + (upper - 1 - lower) // step * step)))
        low, high = low + ends[0], high + ends[1]
    return tuple(moving), low, high


def _from_first(moving: _Moving, target: tuple[ir.For, ...], position: int) -> int:
    """The position in the first iteration."""
    first = {loop.var: value_of(loop.lower) or 0 for loop in target}
    return position + sum(factor * first[name] for name, factor in moving)


def _moved(body: tuple[ir.Stmt, ...], name: str, target: tuple[ir.For, ...]) -> tuple[ir.Stmt, ...]:
    """The statements with the indices of an array as they are in the first iteration."""
    first: dict[str, ir.Expr] = {loop.var: loop.lower for loop in target}

    def visit(node: Node) -> Node | None:
        if isinstance(node, ir.Load | ir.Store) and node.buffer == name:
            indices = tuple(simplify(substitute(i, first)) for i in node.indices)
            return replace(node, indices=indices)
        return None

    return rewrite(body, visit)


__all__ = ["flatten"]
