"""Element-by-element operations on arrays that broadcast against each other."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from .axes import Indices, Region, Shape
from .broadcast import common_shape, stretched
from .context import Context
from .tensors import (
    Array,
    Pending,
    Tensor,
    Value,
    band_name,
    cheap,
    elements,
    held,
    loops,
    reads,
    store,
    type_of,
)

Element = Callable[..., ir.Expr]


def elementwise(
    ctx: Context,
    element: Element,
    operands: Sequence[tuple[Value, ast.expr]],
    node: ast.expr,
    op: str,
    name: str | None = None,
) -> Array:
    """`element` of the operands at every index of the shape they broadcast to.

    With `lower_linalg` it is a band of its own, else part of the statement's nest.

    Raises:
        FrontendError: FX105, the shapes do not fit.
    """
    shape = _shape(ctx, [v for v, _ in operands if isinstance(v, Tensor | Pending)], node)
    sources = [_source(ctx, value, shape, part) for value, part in operands]

    def at(indices: Indices) -> ir.Expr:
        return element(*(s.at(stretched(indices, s.shape)) if isinstance(s, Tensor) else s for s in sources))

    dtype = at(tuple(ir.LoopVar("?", INDEX, ctx.span(node)) for _ in shape)).type
    tensor = Tensor(dtype, shape, at)
    if not ctx.program.options.lower_linalg:
        return tensor
    band = band_name(ctx, op, name)

    def write(region: Region) -> None:
        with loops(ctx, shape, node, band) as indices:
            store(ctx, region, indices, at(indices), node)

    return Pending(dtype, shape, write, reads(tensor), band, tensor)


def _shape(ctx: Context, arrays: Sequence[Array], node: ast.expr) -> Shape:
    shape: Shape = ()
    for value in arrays:
        common = common_shape(shape, value.shape)
        if common is None:
            types = " and ".join(str(type_of(v)) for v in arrays)
            hint = "dimensions are aligned at the last one; only extents of 1 stretch"
            raise ctx.error("FX105", f"Shape mismatch, got {types}, and cannot be broadcasted", node, hint)
        shape = common
    return shape


def _source(ctx: Context, value: Value, shape: Shape, part: ast.expr) -> Tensor | ir.Expr:
    """An operand ready to be read in the nest; one that is stretched is read several times."""
    if isinstance(value, Tensor | Pending):
        return elements(ctx, value, part) if value.shape == shape else cheap(ctx, value, part)
    return held(ctx, value, part)
