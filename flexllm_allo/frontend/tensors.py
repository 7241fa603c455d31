"""Array values while a statement is lowered, and the loops that store them.

An array value is not a buffer yet.  A `Tensor` knows the expression of any one of its elements, so
that ``(A + B) * C`` becomes a single nest without temporaries.  A `Pending` one has to be computed as
a whole, such as a matrix product; it is written right into its destination where that is possible.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..errors import UNKNOWN
from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import INDEX, RUN_TIME, ArrayType, DType
from ..ir.walk import rewrite, walk
from .axes import Axis, Indices, Region, Shape, whole
from .broadcast import fits, stretched
from .context import Context, LoopSymbol


@dataclass(frozen=True)
class Tensor:
    """An array whose elements are computed when they are needed.

    `cheap`: an element costs no more than a load, so it may be computed more than once.
    """

    dtype: DType
    shape: Shape
    at: Callable[[Indices], ir.Expr]
    cheap: bool = False


@dataclass(frozen=True)
class Pending:
    """An array computed as a whole: `write` emits the loops that fill a region of its shape.

    `reads` are the buffers it looks at while it writes.  `elements` are there where each element is
    written once, by itself: then any element type will do.  `name` is that of its band and temporary.
    """

    dtype: DType
    shape: Shape
    write: Callable[[Region], None]
    reads: frozenset[str]
    name: str
    elements: Tensor | None = None


Array = Tensor | Pending
Value = Array | ir.Expr


def type_of(value: Array) -> ArrayType:
    """The type as it is written in annotations and messages."""
    return ArrayType(value.dtype, value.shape)


def loaded(region: Region, node: ast.AST, ctx: Context) -> Tensor:
    """The values of a region."""
    span = ctx.span(node)

    def at(indices: Indices) -> ir.Expr:
        return ir.Load(region.buffer.name, region.at(indices), region.dtype, span)

    return Tensor(region.dtype, region.shape, at, cheap=True)


# ---------------------------------------------------------------------------------------- loops


def band_name(ctx: Context, op: str, name: str | None = None) -> str:
    """The band of a tensor operation: the name given, else ``<op>_<n>``."""
    if name is not None:
        return name
    ctx.tensor_operations += 1
    return f"{op}_{ctx.tensor_operations - 1}"


@contextmanager
def loops(
    ctx: Context, shape: Shape, node: ast.AST, band: str | None = None, outer: int = 0
) -> Generator[Indices]:
    """A nest over `shape` around what is emitted inside; yields its loop variables.

    With a `band`, and where the kernel is lowered with `lower_linalg`, schedules see the loops as
    ``L_0``, ``L_1``, ...; else they are out of their reach.  `outer` counts the operation's own loops
    around this nest, which then belongs to their band.
    """
    if RUN_TIME in shape:
        hint = "write a loop over its size"
        raise ctx.error("FX105", "the size of this array is known at run time only", node, hint)
    named = band is not None and ctx.program.options.lower_linalg
    variables = [_variable(ctx, f"L_{outer + d}" if named else f"_{outer + d}") for d in range(len(shape))]
    span = ctx.span(node)
    with ctx.block() as body:
        for variable in variables:
            ctx.bind(variable, LoopSymbol(variable), node)
        yield tuple(ir.LoopVar(v, INDEX, span) for v in variables)
    statements = tuple(body)
    for variable, size in zip(reversed(variables), reversed(shape), strict=True):
        lower, upper = ir.Const(0, INDEX, span), ir.Const(size, INDEX, span)
        statements = (ir.For(variable, lower, upper, statements, span=span),)
    for level, stmt in enumerate(statements):
        first = level == 0 and named and not outer and isinstance(stmt, ir.For)
        ctx.emit(replace(stmt, band=band) if first else stmt)


def _variable(ctx: Context, name: str) -> str:
    """A name no loop around has: names may repeat in a function, not in a nest."""
    while isinstance(ctx.find(name), LoopSymbol):
        name += "_"
    return name


def store(ctx: Context, region: Region, indices: Indices, value: ir.Expr, node: ast.AST) -> None:
    """One element of a region, converted to its type."""
    converted = cast(value, region.dtype, ctx.span(node))
    ctx.emit(ir.Store(region.buffer.name, region.at(indices), converted, ctx.span(node)))


# --------------------------------------------------------------------------- values into buffers


def held(ctx: Context, value: ir.Expr, node: ast.AST) -> ir.Expr:
    """A scalar used in a nest: evaluated once, before it."""
    if isinstance(value, ir.Const | ir.LoopVar) or (isinstance(value, ir.Load) and not value.indices):
        return value
    buffer = ctx.temporary("held", value.type, node)
    ctx.emit(ir.Store(buffer.name, (), value, ctx.span(node)))
    return ir.Load(buffer.name, (), value.type, ctx.span(node))


def stored(ctx: Context, value: Array, node: ast.AST) -> Region:
    """The value in a buffer of its own."""
    stem = value.name if isinstance(value, Pending) else "value"
    buffer = ir.Buffer(ctx.fresh(stem), value.dtype, value.shape, span=ctx.span(node))
    ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
    region = whole(buffer)
    write(ctx, region, value, node)
    return region


def elements(ctx: Context, value: Array, node: ast.AST) -> Tensor:
    """The value with elements at hand; what must be computed as a whole is, into a temporary."""
    return value if isinstance(value, Tensor) else loaded(stored(ctx, value, node), node, ctx)


def cheap(ctx: Context, value: Array, node: ast.AST) -> Tensor:
    """The value with elements that cost a load, for operations that look at each several times."""
    if isinstance(value, Tensor) and value.cheap:
        return value
    return loaded(stored(ctx, value, node), node, ctx)


def write(ctx: Context, region: Region, value: Array, node: ast.AST) -> None:
    """Fill a fresh region that the value does not read."""
    if isinstance(value, Pending):
        value.write(region)
        return
    with loops(ctx, region.shape, node) as indices:
        store(ctx, region, indices, value.at(stretched(indices, value.shape)), node)


def fill(ctx: Context, region: Region, value: ir.Expr, node: ast.AST) -> None:
    """Every element gets the scalar."""
    value = held(ctx, cast(value, region.dtype, ctx.span(node)), node)
    region = settled(ctx, region, node)
    with loops(ctx, region.shape, node) as indices:
        store(ctx, region, indices, value, node)


def assign(ctx: Context, region: Region, value: Array, node: ast.AST, at: ast.AST | None = None) -> None:
    """``region = value`` with broadcasting, as if the value were computed first.

    Raises:
        FrontendError: FX105, the value does not stretch to the region.
    """
    if not fits(value.shape, region.shape):
        given, wanted = type_of(value), ArrayType(region.dtype, region.shape)
        rule = "Cannot broadcast" if len(value.shape) <= len(region.shape) else "Shape mismatch, got"
        joined = "to" if rule.startswith("Cannot") else "and"
        hint = "dimensions are aligned at the last one; only extents of 1 stretch, the target never does"
        raise ctx.error("FX105", f"{rule} {given} {joined} {wanted}", at or node, hint)
    region = settled(ctx, region, node)
    if isinstance(value, Pending):
        if _writes_into(value, region):
            value.write(region)
            return
        value = elements(ctx, value, node)
    if not _independent(region, value):
        value = loaded(stored(ctx, value, node), node, ctx)
    write(ctx, region, value, node)


def settled(ctx: Context, region: Region, node: ast.AST) -> Region:
    """The region with indices that do not change while it is written (``A[A[0]] = B``)."""
    return _fixed(ctx, region, node, lambda load: load.buffer == region.buffer.name)


def steady(ctx: Context, region: Region, node: ast.AST) -> Region:
    """The region with indices that nothing can change later."""
    return _fixed(ctx, region, node, lambda _: True)


def _fixed(ctx: Context, region: Region, node: ast.AST, changes: Callable[[ir.Load], bool]) -> Region:
    def start(axis: Axis) -> ir.Expr:
        loads = (n for n in walk(axis.start) if isinstance(n, ir.Load))
        if not any(changes(n) for n in loads):
            return axis.start
        buffer = ctx.temporary("at", axis.start.type, node)
        ctx.emit(ir.Store(buffer.name, (), axis.start, ctx.span(node)))
        return ir.Load(buffer.name, (), buffer.dtype, ctx.span(node))

    return replace(region, axes=tuple(replace(a, start=start(a)) for a in region.axes))


def reads(*values: Tensor) -> frozenset[str]:
    """The arrays whose elements the values are made of."""
    found: set[str] = set()
    for value in values:
        probe = tuple(ir.LoopVar(f"?{d}") for d in range(len(value.shape)))
        found |= {n.buffer for n in walk(value.at(probe)) if isinstance(n, ir.Load) and n.indices}
    return frozenset(found)


def _writes_into(value: Pending, region: Region) -> bool:
    """Whether the value can be computed in its place."""
    if value.shape != region.shape:
        return False
    if value.elements is not None:
        return _independent(region, value.elements)
    return value.dtype == region.dtype and region.buffer.name not in value.reads


def _independent(region: Region, value: Tensor) -> bool:
    """Whether storing elements one by one never changes an element that is read later."""
    probe = tuple(ir.LoopVar(f"?{d}") for d in range(len(region.shape)))
    written = region.at(probe)
    for n in walk(value.at(stretched(probe, value.shape))):
        if isinstance(n, ir.Load) and n.buffer == region.buffer.name:
            if not (_same(n.indices, written) or _apart(n.indices, written)):
                return False
    return True


def _same(a: Indices, b: Indices) -> bool:
    return len(a) == len(b) and all(
        rewrite(x, _without_span) == rewrite(y, _without_span) for x, y in zip(a, b, strict=True)
    )


def _without_span(node: ir.Expr) -> ir.Expr:
    return replace(node, span=UNKNOWN)


def _apart(a: Indices, b: Indices) -> bool:
    """Whether two accesses differ in a constant index, so that they never meet."""
    return any(
        isinstance(x, ir.Const) and isinstance(y, ir.Const) and x.value != y.value
        for x, y in zip(a, b, strict=False)
    )
