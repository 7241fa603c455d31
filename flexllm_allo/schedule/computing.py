"""The primitive `compute_at`: a producer's loops move into those of its consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..analysis.accesses import Access
from ..analysis.dependence import conflicts, largest_delay
from ..analysis.syntax import same_expr
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.dtypes import BOOL
from ..ir.simplify import binary, const, simplify, value_of
from ..ir.walk import substitute
from .loops import Axis
from .names import LoopSite, Path, find_loop, replace_at, statement_at
from .nests import chain, clear_of, uses


def compute_at(program: ir.Program, func: str, from_loop: Axis, target_loop: Axis) -> ir.Program:
    """Compute what a nest produces inside the loops of the nest that consumes it.

    The producer's outer loops become those of the consumer down to `target_loop`; its other loops
    run there before the consumer's.  Where the consumer needs elements of later iterations of the
    producer, it runs that many iterations behind, under a condition.  The consumer's names remain.

    Args:
        from_loop: any loop of the nest that moves.
        target_loop: the loop of the consumer in each iteration of which the producer runs.

    Raises:
        ScheduleError: FX203, the consumer would run before the producer has made what it needs
            (both accesses are shown); FX202, statements between the loops; FX205, bounds that do
            not fit, or the nests are not one after the other.

    Example:
        >>> s = allo.customize(producer_consumer)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:
            C: int32[10]
            B: int32[10]
            for i in range(10, name="S_i_0"):
                B[i] = A[i] + 1
            for i in range(10, name="S_i_1"):
                C[i] = B[i] * 2
            return C
        >>> loops = s.get_loops()
        >>> s.compute_at(loops.S_i_0.i, loops.S_i_1.i)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:
            C: int32[10]
            B: int32[10]
            for i in range(10, name="S_i_1"):
                B[i] = A[i] + 1
                C[i] = B[i] * 2
            return C
    """
    source, target = find_loop(program, func, from_loop), find_loop(program, func, target_loop)
    pair = _pair(source, target)
    _check_between(program, pair)
    delays = _delays(program, pair)
    function = source.function
    body = pair.body(function)
    new = [*body[: pair.first], *body[pair.first + 1 : pair.second], _fused(pair, delays)]
    new += body[pair.second + 1 :]
    return program.with_function(_with_body(function, pair.region, tuple(new)))


@dataclass(frozen=True)
class _Pair:
    """The two nests: their positions in the body of `region`, and the loops that become one."""

    source: LoopSite
    target: LoopSite
    region: Path
    first: int
    second: int
    producer: tuple[ir.For, ...]
    consumer: tuple[ir.For, ...]

    def body(self, function: ir.Function) -> tuple[ir.Stmt, ...]:
        return _body_at(function, self.region, self.source.path[len(self.region)][0])


def _body_at(function: ir.Function, region: Path, field: str) -> tuple[ir.Stmt, ...]:
    return getattr(statement_at(function, region) if region else function, field)


def _with_body(function: ir.Function, region: Path, body: tuple[ir.Stmt, ...]) -> ir.Function:
    if not region:
        return replace(function, body=body)
    owner = statement_at(function, region)
    assert isinstance(owner, ir.For)
    return replace_at(function, region, (replace(owner, body=body),))


def _pair(source: LoopSite, target: LoopSite) -> _Pair:
    places = [Place(source.loop.span, "the producer"), Place(target.loop.span, "the consumer")]
    if source.function.name != target.function.name or source.band == target.band:
        what = "one band" if source.band == target.band else "two functions"
        message = f"compute_at joins two bands of one function; these loops are in {what}"
        raise ScheduleError("FX205", message, places, "name a loop of each of the two nests")
    # A band's first loop is the one without named loops around it.
    roots = [_root(site) for site in (source, target)]
    if roots[0][:-1] != roots[1][:-1] or roots[0][-1][0] != "body" or roots[1][-1][0] != "body":
        message = f'bands "{source.band}" and "{target.band}" are not in the same body'
        raise ScheduleError("FX205", message, places, "one is under a condition or a loop of its own")
    first, second = roots[0][-1][1], roots[1][-1][1]
    if first > second:
        message = f'band "{source.band}" comes after "{target.band}"'
        raise ScheduleError("FX205", message, places, "the producer is the first, the target the second")
    consumer = _nest_to(target)
    producer = _outer(source, len(consumer))
    return _Pair(source, target, roots[0][:-1], first, second, producer, consumer)


def _root(site: LoopSite) -> Path:
    """The path of the first loop of the site's band."""
    path = site.path
    for depth in range(1, len(path) + 1):
        stmt = statement_at(site.function, path[:depth])
        if isinstance(stmt, ir.For) and not stmt.hidden:
            return path[:depth]
    raise AssertionError("a site is a named loop")


def _nest_to(target: LoopSite) -> tuple[ir.For, ...]:
    """The consumer's loops from its first to the target, perfectly nested."""
    root = statement_at(target.function, _root(target))
    assert isinstance(root, ir.For)
    loops = [root]
    while loops[-1] is not target.loop:
        inner = loops[-1].body
        if len(inner) != 1 or not isinstance(inner[0], ir.For):
            raise _imperfect(target, loops[-1], inner)
        loops.append(inner[0])
    return tuple(chain(root, target.loop))


def _imperfect(site: LoopSite, loop: ir.For, inner: tuple[ir.Stmt, ...]) -> ScheduleError:
    other = next((s for s in inner if not isinstance(s, ir.For)), inner[-1])
    message = f'loops "{loop.var}" and "{site.name}" are not perfectly nested'
    places = [Place(other.span, "this statement is between them"), Place(loop.span, f'loop "{loop.var}"')]
    return ScheduleError("FX202", message, places, f'compute at "{loop.var}" instead')


def _outer(source: LoopSite, depth: int) -> tuple[ir.For, ...]:
    """The producer's `depth` outer loops, perfectly nested."""
    loop = statement_at(source.function, _root(source))
    assert isinstance(loop, ir.For)
    loops = [loop]
    while len(loops) < depth:
        inner = loops[-1].body
        if len(inner) != 1 or not isinstance(inner[0], ir.For):
            places = [Place(loops[-1].span, f"{len(loops)} perfectly nested loops end here")]
            message = f'band "{source.band}" has no {depth} perfectly nested loops to join with the consumer'
            raise ScheduleError("FX202", message, places, "compute at an outer loop of the consumer")
        loops.append(inner[0])
    return tuple(loops)


# ---------------------------------------------------------------------------------------- legality


def _check_between(program: ir.Program, pair: _Pair) -> None:
    """The producer moves past the statements before the consumer."""
    function = pair.source.function
    body = pair.body(function)
    mine = uses(program, function, body[pair.first])
    for stmt in body[pair.first + 1 : pair.second]:
        for other in uses(program, function, stmt):
            clash = next((a for a in mine if conflicts(a, other)), None)
            if clash is not None:
                raise ScheduleError(
                    "FX203", f'"{clash.buffer}" is used between the two nests',
                    at=[Place(clash.span, f'"{clash.buffer}" is {clash.verb} by the producer'),
                        Place(other.span, f"and {other.verb} here, before the consumer")],
                    hint="move that statement out of the way, or compute at its loops first",
                )  # fmt: skip


def _delays(program: ir.Program, pair: _Pair) -> tuple[int, ...]:
    """By how many iterations of each loop the consumer must run behind the producer."""
    function = pair.source.function
    body = pair.body(function)
    producer, consumer = body[pair.first], body[pair.second]
    before = uses(program, function, producer)
    after = uses(program, function, consumer)
    changing = {a.buffer for a in (*before, *after) if a.write}
    pairs = [(a, b) for a in before for b in after if conflicts(a, b)]
    delays: list[int] = []
    for level, (p, c) in enumerate(zip(pair.producer, pair.consumer, strict=True)):
        limit = _common_extent(pair, level)
        worst, why = 0, None
        for a, b in pairs:
            delay = largest_delay(a, b, pair.producer, pair.consumer, delays, limit, changing)
            if delay > worst:
                worst, why = delay, (a, b)
        if why is not None and worst >= limit - 1:  # nothing would run at the same time
            raise _too_late(pair, p, c, *why)
        delays.append(worst)
    return tuple(delays)


def _common_extent(pair: _Pair, level: int) -> int:
    """Iterations of a pair of loops, over both ranges; 1 for equal bounds that are not constant."""
    p, c = pair.producer[level], pair.consumer[level]
    bounds = [value_of(e) for e in (p.lower, p.upper, c.lower, c.upper)]
    if p.step == c.step == 1 and None not in bounds:
        low, high, low2, high2 = (b or 0 for b in bounds)
        return max(high - low, high2 - low2, 1)
    names = {a.var: ir.LoopVar(b.var) for a, b in zip(pair.producer[:level], pair.consumer, strict=False)}
    if p.step == c.step and all(
        same_expr(substitute(a, dict(names)), b) for a, b in ((p.lower, c.lower), (p.upper, c.upper))
    ):
        return 1
    raise ScheduleError(
        "FX205", f'loops "{p.var}" and "{c.var}" have bounds that cannot be joined',
        at=[Place(p.span, "the producer's"), Place(c.span, "the consumer's")],
        hint="constant bounds and step 1, or the same bounds in both",
    )  # fmt: skip


def _too_late(pair: _Pair, p: ir.For, c: ir.For, a: Access, b: Access) -> ScheduleError:
    return ScheduleError(
        "FX203",
        f'a dependence on "{a.buffer}" forbids computing band "{pair.source.band}" at "{pair.target.name}"',
        at=[Place(a.span, f'"{a.buffer}" is {a.verb} here in a late iteration of "{p.var}"'),
            Place(b.span, f'but {b.verb} here in an early one of "{c.var}"')],
        hint="bring the loops of both nests into the same order, or compute at an outer loop",
    )  # fmt: skip


# ------------------------------------------------------------------------------------ the new nest


def _fused(pair: _Pair, delays: Sequence[int]) -> ir.For:
    """The consumer's nest with the producer inside."""
    loops = list(zip(pair.producer, pair.consumer, strict=True))
    joined: dict[str, ir.Expr] = {p.var: ir.LoopVar(c.var) for p, c in loops}
    moved = clear_of(pair.producer[-1].body, {c.var for c in pair.consumer})
    first = simplify(substitute(moved, joined))
    late: dict[str, ir.Expr] = {
        c.var: binary("-", ir.LoopVar(c.var, span=c.span), d)
        for c, d in zip(pair.consumer, delays, strict=True) if d
    }  # fmt: skip
    second = simplify(substitute(pair.consumer[-1].body, late)) if late else pair.consumer[-1].body
    runs: list[ir.Expr] = []
    behind: list[ir.Expr] = []
    bounds: list[tuple[ir.Expr, ir.Expr]] = []
    for p, c, d in zip(pair.producer, pair.consumer, delays, strict=True):
        bounds.append(_joined_bounds(p, c, d, runs, behind))
    body = (*_under(runs, first), *_under(behind, second))
    for c, (lower, upper) in zip(reversed(pair.consumer), reversed(bounds), strict=True):
        attrs = replace(c.attrs, parallel=False)
        body = (replace(c, lower=lower, upper=upper, body=body, attrs=attrs),)
    (new,) = body
    assert isinstance(new, ir.For)
    return new


def _joined_bounds(
    p: ir.For, c: ir.For, delay: int, runs: list[ir.Expr], behind: list[ir.Expr]
) -> tuple[ir.Expr, ir.Expr]:
    """Bounds that cover both loops; the conditions under which each of them runs are added."""
    values = [value_of(e) for e in (p.lower, p.upper, c.lower, c.upper)]
    if None in values or (delay == 0 and values[:2] == values[2:]):
        return c.lower, c.upper
    low, high, low2, high2 = (v or 0 for v in values)
    low2, high2 = low2 + delay, high2 + delay
    lower, upper = min(low, low2), max(high, high2)
    here = ir.LoopVar(c.var, span=c.span)
    for guards, a, b in ((runs, low, high), (behind, low2, high2)):
        if a > lower:
            guards.append(ir.Binary(">=", here, const(a), BOOL, c.span))
        if b < upper:
            guards.append(ir.Binary("<", here, const(b), BOOL, c.span))
    return const(lower), const(upper)


def _under(conditions: list[ir.Expr], body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    if not conditions:
        return body
    whole = conditions[0]
    for condition in conditions[1:]:
        whole = ir.Logic("and", whole, condition, BOOL, whole.span)
    return (ir.If(whole, body, span=whole.span),)


__all__ = ["compute_at"]
