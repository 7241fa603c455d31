"""The primitive `reuse_at`: line and window buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ..analysis.accesses import Access, accesses, allocated
from ..analysis.affine import Affine, Quotient, Symbol, Term, affine
from ..analysis.interval import Range, hull, interval, ranges
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.dtypes import BOOL, INDEX
from ..ir.simplify import binary, const, simplify
from ..ir.walk import Node, buffers, rewrite, substitute, walk
from .buffers import Target, find_buffer, shared_parameters
from .loops import Axis
from .names import LoopSite, bands, find_loop, fresh, replace_at
from .nests import band_written, extent
from .trace import MockBuffer


def reuse_at(program: ir.Program, func: str, target: Target, axis: Axis) -> tuple[ir.Program, MockBuffer]:
    """Keep what successive iterations of a loop read again in a local buffer: a line or window buffer.

    The buffer slides along the dimension that `axis` indexes.  Each iteration shifts it by the
    stride, loads the elements that are new, and every element of `target` is read once.  The loop
    gets as many iterations more as it takes to fill the buffer; its body runs once it is full.
    Buffers compose: ``LB = s.reuse_at(s.A, "y"); WB = s.reuse_at(LB, "x")``.

    Args:
        target: the array that is read; what another `reuse_at` returned makes a window of a line.
        axis: the loop along which the reads slide.

    Returns:
        The buffer, ``<band>_reuse_<position of the axis>``.  Its dimensions are those of the target
        that change inside the loop.

    Raises:
        ScheduleError: FX205, no two iterations read the same element, the target is written in
            the loop, a read is conditional, runs backwards, or is no linear form.

    Example:
        >>> s = allo.customize(blur)
        >>> print(s)
        def blur(A: int32[10]) -> int32[8]:
            B: int32[8]
            for x in range(8, name="S_x_0"):
                B[x] = A[x] + A[x + 1] + A[x + 2]
            return B
        >>> s.reuse_at(s.A, "x")
        MockBuffer(blur:S_x_0_reuse_0)
        >>> print(s)
        def blur(A: int32[10]) -> int32[8]:
            B: int32[8]
            S_x_0_reuse_0: int32[3] = [0, 0, 0]
            for x in range(10, name="S_x_0"):
                for _1 in range(2):  # unroll
                    S_x_0_reuse_0[_1] = S_x_0_reuse_0[_1 + 1]
                S_x_0_reuse_0[2] = A[x]
                if x >= 2:
                    B[x - 2] = S_x_0_reuse_0[0] + S_x_0_reuse_0[1] + S_x_0_reuse_0[2]
            return B
    """
    site = find_loop(program, func, axis)
    function, buffer = find_buffer(program, func, target)
    if function.name != site.function.name:
        raise _refuse(site, f'"{buffer.name}" belongs to "{function.name}", not to "{site.function.name}"')
    plan = _plan(program, site, buffer)
    start = ir.Alloc(plan.local, _zeros(plan.local), site.loop.span)
    made = replace_at(function, site.path, (start, _loop(plan)))
    return program.with_function(made), MockBuffer(function.name, plan.local.name)


@dataclass(frozen=True)
class _Dim:
    """One dimension of the target as the loop reads it.

    Elements ``base + stride * iteration + window[0] .. window[1]``; `base` is fixed in the loop.
    """

    base: Affine
    window: Range
    stride: int = 0
    local: bool = False  # whether it is a dimension of the buffer

    @property
    def size(self) -> int:
        return self.window[1] - self.window[0] + 1

    @property
    def kept(self) -> int:
        """Elements of the window that the next iteration reads again."""
        return max(0, self.size - self.stride)


@dataclass(frozen=True)
class _Plan:
    site: LoopSite
    target: ir.Buffer
    dims: tuple[_Dim, ...]
    slides: int  # the dimension that moves
    local: ir.Buffer
    changing: frozenset[str]

    @property
    def step(self) -> str:
        """The variable of loops along the dimension that moves; schedules cannot name them."""
        return f"_{len(self.dims)}"

    @property
    def fill(self) -> int:
        """Iterations before the buffer is full."""
        dim = self.dims[self.slides]
        return -(-dim.kept // dim.stride)


def _refuse(site: LoopSite, why: str, *places: Place, hint: str = "") -> ScheduleError:
    here = Place(site.loop.span, f'loop "{site.name}"')
    message = f"Cannot find reuse pattern on axis {site.name}: {why}"
    return ScheduleError("FX205", message, [*places, here], hint or _PATTERN)


_WINDOW = 7  # a window is at most this wide beside the sliding dimension, a line is longer
_PATTERN = "reuse needs reads such as A[y + r], where y is the axis and r stays inside a window"


def _plan(program: ir.Program, site: LoopSite, target: ir.Buffer) -> _Plan:
    loop, name = site.loop, target.name
    uses = [a for a in accesses(loop.body, program) if a.buffer == name]
    if not uses or target.is_stream or name in allocated(loop.body):
        raise _refuse(site, f'the loop reads no array "{name}" from outside')
    if name in shared_parameters(program, site.function):
        why = f'"{name}" is the same array as another parameter in some call'
        raise _refuse(site, why, Place(target.span), hint="pass different arrays, or copy one first")
    if not extent(loop):
        raise _refuse(site, "the loop has no constant extent", hint="give it constant bounds, or split it")
    for use in uses:
        _check_use(site, target, use)
    changing = frozenset(band_written(site, program))
    dims = tuple(_dimension(site, target, uses, d, changing) for d in range(len(target.shape)))
    slides = _sliding(site, target, dims, uses)
    _check_box(site, target, dims)
    dims = (*dims[:slides], replace(dims[slides], local=True), *dims[slides + 1 :])
    table = bands(site.function)[site.band]
    position = next(i for i, s in enumerate(table) if s.path == site.path)
    made = fresh(f"{site.band}_reuse_{position}", set(buffers(site.function)))
    local = ir.Buffer(made, target.dtype, tuple(d.size for d in dims if d.local), span=target.span)
    return _Plan(site, target, dims, slides, local, changing)


def _check_use(site: LoopSite, target: ir.Buffer, use: Access) -> None:
    """A whole element, read in every iteration, and never written."""
    name = target.name
    if use.write:
        hint = "copy the elements that are read to an array of their own first"
        raise _refuse(site, f'the loop writes "{name}"', Place(use.span, "written here"), hint=hint)
    if use.guarded:
        raise _refuse(site, f'"{name}" is read under a condition', Place(use.span, "only in some iterations"))
    if len(use.indices) != len(target.shape):
        raise _refuse(site, f'"{name}" is passed to a function', Place(use.span))


def _dimension(
    site: LoopSite, target: ir.Buffer, uses: Sequence[Access], d: int, changing: frozenset[str]
) -> _Dim:
    axis, name = site.loop.var, target.name
    found: list[_Dim] = []
    for use in uses:
        form, known = affine(use.indices[d], changing), ranges(use.loops)
        here = Place(use.span, f"dimension {d + 1}")
        if form is None or known is None:
            raise _refuse(site, f'the index of "{name}" is no linear form over constant ranges', here)
        base, moving, local = _parts(form, axis, {p.var for p in use.loops})
        if base is None:
            raise _refuse(site, f'the index of "{name}" mixes "{axis}" with other loops', here)
        if moving < 0:
            raise _refuse(site, f'"{name}" is read backwards', here)
        window = interval(_expression(local), known)
        assert window is not None
        found.append(_Dim(base, window, moving * site.loop.step, bool(local.terms)))
    first = found[0]
    for dim, use in zip(found, uses, strict=True):
        if (dim.base, dim.stride) != (first.base, first.stride):
            places = [Place(use.span, "this read"), Place(uses[0].span, "and this one")]
            raise _refuse(site, f'reads of "{name}" move differently', *places)
    window = hull(dim.window for dim in found)
    return replace(first, window=window, local=any(d.local for d in found) or window != first.window)


def _parts(form: Affine, axis: str, inner: set[str]) -> tuple[Affine | None, int, Affine]:
    """The part fixed in the loop, the coefficient of the axis, the part that varies inside it."""
    base: dict[Term, int] = {}
    local: dict[Term, int] = {}
    moving = 0
    for term, c in form.terms:
        names = Affine(((term, 1),)).variables()
        if term == axis:
            moving = c
        elif axis in names or (names & inner and names - inner):
            return None, 0, form
        else:
            (local if names & inner else base)[term] = c
    return Affine.of(base, 0), moving, Affine.of(local, form.constant)


def _sliding(site: LoopSite, target: ir.Buffer, dims: Sequence[_Dim], uses: Sequence[Access]) -> int:
    """The one dimension that moves with the axis, checked to be a window.

    A window that steps over its whole size (pooling) keeps nothing, but brings its elements into a
    buffer that has ports for all of them.
    """
    moving = [d for d, dim in enumerate(dims) if dim.stride]
    if len(moving) != 1:
        which = "no dimension" if not moving else "several dimensions"
        raise _refuse(site, f'it indexes {which} of "{target.name}"', Place(uses[0].span))
    if dims[moving[0]].size == 1:
        here = Place(uses[0].span, "each iteration reads other elements")
        raise _refuse(site, f'no element of "{target.name}" is read again', here)
    return moving[0]


def _check_box(site: LoopSite, target: ir.Buffer, dims: Sequence[_Dim]) -> None:
    """All that is loaded must lie in the array, also what a condition inside an expression leaves out."""
    known = ranges((*site.outer, site.loop)) or {}
    for d, dim in enumerate(dims):
        moving = Affine.of({site.loop.var: dim.stride // site.loop.step}, 0)
        fixed = interval(_expression(dim.base + moving), known)
        if fixed is None:
            continue  # at a run-time position: the extremes of the box are read by the loop itself
        low, high = fixed[0] + dim.window[0], fixed[1] + dim.window[1]
        if low < 0 or high >= target.shape[d]:
            why = f'it would load "{target.name}" from {low} to {high} in dimension {d + 1}'
            raise _refuse(site, why, Place(target.span, f"{target.shape[d]} elements"))


def _expression(form: Affine) -> ir.Expr:
    """A linear form as an index expression."""
    total: ir.Expr | None = None
    for term, c in form.terms:
        match term:
            case Symbol(name):
                part: ir.Expr = ir.Load(name, (), INDEX)
            case Quotient(value, divisor):
                part = binary("//", _expression(value), divisor)
            case _:
                part = ir.LoopVar(term)
        part = binary("*", part, c)
        total = part if total is None else binary("+", total, part)
    return const(form.constant) if total is None else binary("+", total, form.constant)


def _typed(body: tuple[ir.Stmt, ...], table: dict[str, ir.Buffer]) -> tuple[ir.Stmt, ...]:
    """The statements with the scalars of `_expression` read in their own type."""

    def visit(node: Node) -> Node | None:
        if isinstance(node, ir.Load) and not node.indices and node.type != table[node.buffer].dtype:
            return ir.Cast(replace(node, type=table[node.buffer].dtype), INDEX, True, node.span)
        return None

    return rewrite(body, visit)


def _zeros(local: ir.Buffer) -> tuple[int | float, ...]:
    return (0.0 if local.dtype.is_float else 0,) * prod(local.shape)


# ----------------------------------------------------------------------------------- the new loop


def _loop(plan: _Plan) -> ir.For:
    loop, late = plan.site.loop, plan.fill * plan.site.loop.step
    body = rewrite(loop.body, lambda node: _redirect(plan, node))
    position = binary("-", ir.LoopVar(loop.var, span=loop.span), late)
    body = simplify(substitute(body, {loop.var: position}))
    full = ir.Binary(
        ">=", ir.LoopVar(loop.var, span=loop.span), binary("+", loop.lower, late), BOOL, loop.span
    )
    work = (ir.If(full, body, span=loop.span),) if plan.fill else body
    steps = _typed((*_slide(plan), *work), buffers(plan.site.function))
    return replace(loop, upper=binary("+", loop.upper, late), body=steps)


def _redirect(plan: _Plan, node: Node) -> Node | None:
    if not (isinstance(node, ir.Load) and node.buffer == plan.target.name):
        return None
    axis = plan.site.loop.var
    indices: list[ir.Expr] = []
    for index, dim in zip(node.indices, plan.dims, strict=True):
        if dim.local:
            form = affine(index, plan.changing)
            assert form is not None
            kept = {t: c for t, c in form.terms if t != axis and t not in dict(dim.base.terms)}
            indices.append(_expression(Affine.of(kept, form.constant - dim.window[0])))
    return replace(node, buffer=plan.local.name, indices=tuple(indices))


def _slide(plan: _Plan) -> tuple[ir.Stmt, ...]:
    """Shift the buffer and load what is new, for all positions in the other dimensions."""
    names = {d: f"_{d}" for d, dim in enumerate(plan.dims) if dim.local and d != plan.slides}
    body = (*_shift(plan, names), *_load(plan, names))
    # A line is gone through at one element per cycle, a window moves at once.
    window = all(plan.dims[d].size <= _WINDOW for d in names)
    for n, (d, name) in enumerate(reversed(names.items())):
        attrs = ir.LoopAttrs(unroll=0) if window else ir.LoopAttrs(pipeline=None if n else 1)
        body = (
            ir.For(name, const(0), const(plan.dims[d].size), body, attrs=attrs, span=plan.site.loop.span),
        )
    return body


def _place(plan: _Plan, names: dict[int, str], moving: ir.Expr) -> tuple[ir.Expr, ...]:
    return tuple(
        moving if d == plan.slides else ir.LoopVar(names[d]) for d, dim in enumerate(plan.dims) if dim.local
    )


def _shift(plan: _Plan, names: dict[int, str]) -> tuple[ir.Stmt, ...]:
    local, span, dim = plan.local, plan.site.loop.span, plan.dims[plan.slides]
    there = _place(plan, names, binary("+", ir.LoopVar(plan.step), dim.stride))
    value = ir.Load(local.name, there, local.dtype, span)
    store = ir.Store(local.name, _place(plan, names, ir.LoopVar(plan.step)), value, span)
    return _repeated(plan.step, dim.kept, store) if dim.kept else ()


def _load(plan: _Plan, names: dict[int, str]) -> tuple[ir.Stmt, ...]:
    loop, local, dim = plan.site.loop, plan.local, plan.dims[plan.slides]
    count = dim.size - dim.kept
    span, new = loop.span, dim.window[1] + 1 - count
    indices: list[ir.Expr] = []
    for d, part in enumerate(plan.dims):
        offset: ir.Expr = const(part.window[0])
        if d == plan.slides:
            per = dim.stride // loop.step
            moved = binary("*", ir.LoopVar(loop.var, span=span), per)
            offset = binary("+", moved, ir.LoopVar(plan.step))
            offset = binary("+", offset, new - plan.fill * dim.stride)
        elif d in names:
            offset = binary("+", ir.LoopVar(names[d]), part.window[0])
        indices.append(binary("+", _expression(part.base), offset) if part.base.terms else offset)
    value = ir.Load(plan.target.name, tuple(indices), local.dtype, span)
    place = _place(plan, names, binary("+", ir.LoopVar(plan.step), new - dim.window[0]))
    store: ir.Stmt = ir.Store(local.name, place, value, span)
    if plan.fill * dim.stride > dim.kept:
        store = _guarded(plan, store, indices[plan.slides])
    return _repeated(plan.step, count, store)


def _guarded(plan: _Plan, store: ir.Stmt, row: ir.Expr) -> ir.Stmt:
    """Leave out elements before the first that is needed: the window is no multiple of the stride."""
    dim, loop = plan.dims[plan.slides], plan.site.loop
    first = binary("+", binary("*", loop.lower, dim.stride // loop.step), dim.window[0])
    if dim.base.terms:
        first = binary("+", _expression(dim.base), first)
    return ir.If(ir.Binary(">=", row, first, BOOL, loop.span), (store,), span=loop.span)


def _repeated(name: str, count: int, stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
    """The statement for ``name`` from 0 to `count`, side by side."""
    if count == 1:
        return (simplify(substitute(stmt, {name: const(0)})),)
    span = next(n.span for n in walk(stmt))
    return (ir.For(name, const(0), const(count), (stmt,), attrs=ir.LoopAttrs(unroll=0), span=span),)


__all__ = ["reuse_at"]
