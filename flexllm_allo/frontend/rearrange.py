"""Intrinsics that move elements or make them up: transpose, view, concat, tril, copy, zeros, ones."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any, cast

from ..ir import nodes as ir
from ..ir.convert import constant_as
from ..ir.dtypes import BOOL, FLOAT32, INT32, DType
from ..ir.simplify import binary, const
from .axes import Axis, Indices, Region, Shape
from .operations import Request
from .tensors import Array, Tensor, loops, store


def _as_band(call: Request, value: Tensor) -> Array:
    """A rearrangement costs nothing by itself; with `lower_linalg` it is a band that copies."""
    if not call.ctx.program.options.lower_linalg:
        return value

    def write(region: Region, band: str) -> None:
        with loops(call.ctx, value.shape, call.node, band) as indices:
            store(call.ctx, region, indices, value.at(indices), call.node)

    return call.pending([value], value.shape, write, value)


def copy(call: Request) -> Array:
    """The same elements in an array of their own."""
    (x,) = call.operands()
    return _as_band(call, x)


def transpose(call: Request) -> Array:
    """Axes permuted by the tuple `axes`, reversed without it."""
    (x,) = call.operands()
    rank = len(x.shape)
    given = call.settings["axes"]
    axes = tuple(range(rank))[::-1] if given is None else _integers(call, "axes", given)
    axes = tuple(a + rank if a < 0 else a for a in axes)
    if sorted(axes) != list(range(rank)):
        hint = f"axes must be a permutation of 0 to {rank - 1}"
        raise call.ctx.error("FX105", f"Shape mismatch, got axes {axes} for rank {rank}", call.node, hint)

    def at(indices: Indices) -> ir.Expr:
        return x.at(tuple(indices[axes.index(d)] for d in range(rank)))

    return _as_band(call, Tensor(x.dtype, tuple(x.shape[a] for a in axes), at, cheap=True))


def view(call: Request) -> Array:
    """The elements in row-major order under another shape."""
    (x,) = call.operands()
    shape = _integers(call, "shape", call.settings["shape"])
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape = tuple(math.prod(x.shape) // max(rest, 1) if s == -1 else s for s in shape)
    if math.prod(shape) != math.prod(x.shape) or min(shape, default=1) < 1:
        message = f"Shape mismatch, got {x.shape} and {shape}"
        raise call.ctx.error("FX105", message, call.node, "a view keeps the number of elements")

    def at(indices: Indices) -> ir.Expr:
        return x.at(_reshaped(indices, shape, x.shape))

    return _as_band(call, Tensor(x.dtype, shape, at, cheap=True))


def _reshaped(indices: Indices, shape: Shape, source: Shape) -> Indices:
    """Indices of `source` for those of `shape`; dimensions that line up need no division."""
    found: list[ir.Expr] = []
    taken = d = 0
    while d < len(source):
        end, there = d + 1, taken
        size, count = source[d], 1
        while count != size:
            if count < size:
                count *= shape[there]
                there += 1
            else:
                size *= source[end]
                end += 1
        flat: ir.Expr = const(0)
        for index, extent in zip(indices[taken:there], shape[taken:there], strict=True):
            flat = binary("+", binary("*", flat, extent), index)
        found += _split(flat, source[d:end])
        d, taken = end, there
    return tuple(found)


def _split(flat: ir.Expr, extents: Shape) -> list[ir.Expr]:
    """A row-major position as indices."""
    if len(extents) == 1:
        return [flat]
    inner = math.prod(extents[1:])
    return [binary("//", flat, inner), *_split(binary("%", flat, inner), extents[1:])]


def concat(call: Request) -> Array:
    """The second array behind the first along `axis`."""
    x, y = operands = call.operands()
    axis = call.settings["axis"]
    rank = len(x.shape)
    if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank:
        raise call.mismatch(operands, f"there is no axis {axis}")
    axis %= rank
    rest = [(*o.shape[:axis], *o.shape[axis + 1 :]) for o in operands]
    if len(y.shape) != rank or rest[0] != rest[1]:
        raise call.mismatch(operands, f"all dimensions but {axis} must be equal")
    shape = (*x.shape[:axis], x.shape[axis] + y.shape[axis], *x.shape[axis + 1 :])

    def write(region: Region, band: str) -> None:
        start = 0
        for part, name in ((x, band), (y, f"{band}_1")):
            free = [d for d, a in enumerate(region.axes) if a.extent is not None]
            own = region.axes[free[axis]]
            moved = Axis(own.at(const(start)), own.step, part.shape[axis])
            axes = (*region.axes[: free[axis]], moved, *region.axes[free[axis] + 1 :])
            with loops(call.ctx, part.shape, call.node, name) as indices:
                store(call.ctx, Region(region.buffer, axes), indices, part.at(indices), call.node)
            start += part.shape[axis]

    return call.pending(operands, shape, write)


def tril(call: Request) -> Array:
    """The lower triangle of the last two axes; zero above the diagonal."""
    (x,) = call.operands()
    if len(x.shape) < 2:
        raise call.mismatch([x], "a triangle needs two axes")
    span = call.ctx.span(call.node)

    def at(indices: Indices) -> ir.Expr:
        below = ir.Binary("<=", indices[-1], indices[-2], BOOL, span)
        return ir.Select(below, x.at(indices), constant_as(0, x.dtype, span), x.dtype, span)

    return _as_band(call, Tensor(x.dtype, x.shape, at))


def constant(value: int) -> Callable[[Request], Array]:
    """An array of zeros or ones; the element type is float32 unless `dtype` says another."""

    def lower(call: Request) -> Array:
        shape = _integers(call, "shape", call.settings["shape"])
        if min(shape, default=1) < 1:
            raise call.ctx.error("FX105", f"dimensions must be positive, got {shape}", call.node)
        number = constant_as(value, _element_type(call), call.ctx.span(call.node))
        return _as_band(call, Tensor(number.type, shape, lambda _: number, cheap=True))

    return lower


def _element_type(call: Request) -> DType:
    """Allo's rule for NumPy's and Python's types (``int*`` is int32), ours as they are."""
    given: Any = call.settings["dtype"]
    if isinstance(given, DType):
        return given
    name = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    if name.startswith(("int", "float")):
        return INT32 if name.startswith("int") else FLOAT32
    raise call.ctx.error("FX103", f"{call.op} of {given!r} is not supported", call.node, "dtype=int32")


def _integers(call: Request, what: str, value: Any) -> tuple[int, ...]:
    items: list[Any] = list(cast(Any, value)) if isinstance(value, tuple | list) else [value]
    if any(isinstance(i, bool) or not hasattr(i, "__index__") for i in items):
        at: ast.AST = call.node
        raise call.ctx.error("FX105", f"{what} of {call.op} must be a tuple of integers", at)
    return tuple(int(i) for i in items)
