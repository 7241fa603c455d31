"""What loop primitives ask of a nest: is it perfect, what may not change places, how long it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ..analysis.accesses import Access, accesses, allocated, written
from ..analysis.dependence import Dependence, conflicts, dependences
from ..analysis.inlining import inlined
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.simplify import value_of
from ..ir.walk import Node, rewrite, walk
from .buffers import shared_parameters
from .names import LoopSite, fresh


def extent(loop: ir.For) -> int | None:
    """The trip count when the bounds are constants."""
    lower, upper = value_of(loop.lower), value_of(loop.upper)
    return None if lower is None or upper is None else max(0, -(-(upper - lower) // loop.step))


def largest_extent(loop: ir.For) -> int | None:
    """An upper bound of the trip count, also for bounds such as ``min(4, n)``."""
    lower = value_of(loop.lower)
    uppers = list(_constants_above(loop.upper))
    if lower is None or not uppers:
        return None
    return max(0, -(-(min(uppers) - lower) // loop.step))


def _constants_above(expr: ir.Expr) -> Iterator[int]:
    value = value_of(expr)
    if value is not None:
        yield value
    elif isinstance(expr, ir.Binary) and expr.op == "min":
        yield from _constants_above(expr.left)
        yield from _constants_above(expr.right)
    elif isinstance(expr, ir.Cast) and expr.type.is_integer:
        yield from _constants_above(expr.value)


def nest(sites: Sequence[LoopSite]) -> list[LoopSite]:
    """The given loops from the outside in, checked to lie in one perfect nest.

    Raises:
        ScheduleError: FX204 the same loop twice; FX205 different bands or not nested in one another;
            FX202 a statement between two of the loops.
    """
    for i, site in enumerate(sites):
        if any(site.path == other.path and site.function is other.function for other in sites[:i]):
            raise ScheduleError(
                "FX204", f'loop "{site.name}" is named twice', at=site.loop.span, hint="once each"
            )
    ordered = sorted(sites, key=lambda site: len(site.path))
    first = ordered[0]
    for a, b in pairwise(ordered):
        if a.function.name != b.function.name or a.band != b.band:
            raise ScheduleError(
                "FX205", f"loops {a.full_name} and {b.full_name} are not in one band",
                at=[Place(a.loop.span, f'loop "{a.name}"'), Place(b.loop.span, f'loop "{b.name}"')],
                hint="loops of one nest only; compute_at joins two bands",
            )  # fmt: skip
        if b.path[: len(a.path)] != a.path:
            raise ScheduleError(
                "FX205", f'loops "{a.name}" and "{b.name}" are not nested in one another',
                at=[Place(a.loop.span, f'loop "{a.name}"'), Place(b.loop.span, f'loop "{b.name}"')],
                hint="they run one after the other",
            )  # fmt: skip
    _require_perfect(first.loop, ordered[-1])
    return ordered


def _require_perfect(outermost: ir.For, last: LoopSite) -> None:
    loop = outermost
    while loop is not last.loop:
        inner = next((s for s in loop.body if any(n is last.loop for n in walk(s))), None)
        others = [s for s in loop.body if s is not inner]
        if others or not isinstance(inner, ir.For):
            culprit = others[0] if others else inner
            assert culprit is not None
            raise ScheduleError(
                "FX202", f'loops "{loop.var}" and "{last.name}" are not perfectly nested',
                at=[Place(culprit.span, f'this statement is between "{loop.var}" and "{last.name}"'),
                    Place(loop.span, f'loop "{loop.var}"')],
                hint="move the statement out of the loop, or into a loop of its own",
            )  # fmt: skip
        loop = inner


def chain(outermost: ir.For, innermost: ir.For) -> list[ir.For]:
    """The loops of a perfect nest from one to the other, both included."""
    loops = [outermost]
    while loops[-1] is not innermost:
        inner = loops[-1].body[0]
        assert isinstance(inner, ir.For)
        loops.append(inner)
    return loops


def band_written(site: LoopSite, program: ir.Program) -> set[str]:
    """Buffers written anywhere in the outermost loop around a site, those of functions it calls included."""
    root = site.outer[0] if site.outer else site.loop
    return written(inlined((root,), program), program)


def nest_accesses(site: LoopSite, program: ir.Program) -> list[Access]:
    """Accesses in a loop to buffers that live longer than one iteration of its innermost body.

    Those of the functions it calls are what they are in terms of their arguments. Parameters that some call
    binds to one array count as one buffer, any element of which may be meant.
    """
    body = inlined((site.loop,), program)
    private = allocated(body)
    shared = shared_parameters(program, site.function)
    return [
        replace(a, buffer=shared[a.buffer], indices=()) if a.buffer in shared else a
        for a in accesses(body, program, site.outer)
        if a.buffer not in private
    ]


def uses(program: ir.Program, function: ir.Function, stmt: ir.Stmt) -> list[Access]:
    """Accesses of a statement to buffers that are there before it and after it.

    Parameters that some call binds to one array count as one buffer, any element of which may be meant.
    """
    shared = shared_parameters(program, function)
    return [
        replace(a, buffer=shared[a.buffer], indices=()) if a.buffer in shared else a
        for a in accesses((stmt,), program)
        if a.buffer not in allocated((stmt,))
    ]


def clear_of(body: tuple[ir.Stmt, ...], names: set[str]) -> tuple[ir.Stmt, ...]:
    """The statements, with other names for those of their loops that have one of `names`."""
    taken = names | {n.var for n in walk(body) if isinstance(n, ir.For)}
    new: dict[str, str] = {}
    for n in walk(body):
        if isinstance(n, ir.For) and n.var in names and n.var not in new:
            new[n.var] = fresh(n.var, taken)
            taken.add(new[n.var])

    def visit(node: Node) -> Node | None:
        match node:
            case ir.For() if node.var in new:
                return replace(node, var=new[node.var])
            case ir.LoopVar() if node.name in new:
                return replace(node, name=new[node.name])
            case _:
                return None

    return rewrite(body, visit) if new else body


def conflicting_pairs(found: Sequence[Access]) -> Iterator[tuple[Access, Access]]:
    """Ordered pairs that could depend on each other, except iterations of one exact reduction."""
    for source in found:
        for sink in found:
            if not conflicts(source, sink):
                continue
            a, b = source.reduction, sink.reduction
            if a is not None and b is not None and a.commutes_with(b):
                continue
            yield source, sink


def order_violation(
    found: Sequence[Access],
    common: Sequence[ir.For],
    new_order: Sequence[int],
    fixed: int,
    written_in_band: set[str],
) -> Dependence | None:
    """A dependence that points backwards when ``common`` is run in `new_order`, if there is one.

    Float reductions need no rule of their own: the new order is legal exactly if for each element
    the iterations keep their order.  Loops marked `reassociate` lift that.
    """

    def reversed_(directions: tuple[str, ...]) -> bool:
        for i in new_order:
            if directions[i] != "=":
                return directions[i] == ">"
        return False

    for source, sink in conflicting_pairs(found):
        for dep in dependences(source, sink, common, written_in_band, fixed, reversed_):
            if not _may_reassociate(dep, common):
                return dep
    return None


def _may_reassociate(dep: Dependence, common: Sequence[ir.For]) -> bool:
    a, b = dep.source.reduction, dep.sink.reduction
    if a is None or b is None or a.op != b.op or not a.load.type.is_float:
        return False
    moved = [loop for loop, d in zip(common, dep.directions, strict=True) if d != "="]
    return all(loop.attrs.reassociate for loop in moved)


def refuse_dependence(dep: Dependence, common: Sequence[ir.For], action: str) -> ScheduleError:
    """FX203 with both accesses; the schedule's line is added by the caller."""
    vector = ", ".join(
        f"{loop.var} {'earlier' if d == '<' else 'same' if d == '=' else 'later'}"
        for loop, d in zip(common, dep.directions, strict=True)
    )
    a, b = dep.source, dep.sink
    floats = a.reduction is not None and b.reduction is not None
    hint = (
        "the float sum over these loops would be rounded differently; "
        f's.reassociate("{_carrier(dep, common)}") allows it'
        if floats
        else "keep the order of these loops, or write the result into another buffer"
    )
    return ScheduleError(
        "FX203", f'a dependence on "{a.buffer}" forbids {action}',
        at=[Place(a.span, f'"{a.buffer}" is {a.verb} here first ({vector})'),
            Place(b.span, f'and the same element is {b.verb} here afterwards')],
        hint=hint,
    )  # fmt: skip


def _carrier(dep: Dependence, common: Sequence[ir.For]) -> str:
    moved = [loop.var for loop, d in zip(common, dep.directions, strict=True) if d != "="]
    return moved[-1] if moved else common[-1].var


def bound_reads(*exprs: ir.Expr) -> set[str]:
    """Buffers read by loop bounds."""
    return {n.buffer for e in exprs for n in walk(e) if isinstance(n, ir.Load)}


def loop_vars(expr: ir.Expr) -> set[str]:
    """Loop variables an expression reads."""
    return {n.name for n in walk(expr) if isinstance(n, ir.LoopVar)}


def names_in_nest(site: LoopSite) -> set[str]:
    """Loop variables around and inside a loop, which a new loop there may not use."""
    inside = {n.var for n in walk(site.loop) if isinstance(n, ir.For)}
    return inside | {loop.var for loop in site.outer}
