"""Arguments spread over the mesh of a kernel: ``la: T[M, K] @ [S(0), R]``.

Each instance sees its own tile under local indices; in the IR it is given the whole array, and the
place of the tile is added to every index.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ..errors import BackendError
from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from ..ir.walk import rewrite
from .context import Context

Offsets = tuple[int | None, ...]
"""Where a tile starts along every dimension; None for dimensions that are not split."""


def shard(
    ctx: Context, arg: ast.arg, param: ir.Buffer, point: tuple[int, ...], mesh: tuple[int, ...]
) -> tuple[ir.Buffer, Offsets]:
    """The parameter as one instance sees it, and where its tile starts.

    Raises:
        FrontendError: FX105 the layout does not fit the array or the mesh.
    """
    axes = _axes(param.memory)
    if axes is None:
        return param, ()
    if len(axes) > len(param.shape):
        raise ctx.error("FX105", f"the layout of {arg.arg} has {len(axes)} dimensions", arg)
    local = list(param.shape)
    offsets: list[int | None] = [None] * len(param.shape)
    for dim, axis in enumerate(axes):
        if axis is None:
            continue
        if not 0 <= axis < len(mesh):
            raise ctx.error("FX105", f"{arg.arg} is sharded along axis {axis} of a mesh {list(mesh)}", arg)
        if param.shape[dim] % mesh[axis]:
            message = f"dimension {dim} of {arg.arg} ({param.shape[dim]}) is not a multiple of {mesh[axis]}"
            raise ctx.error("FX105", message, arg)
        local[dim] = param.shape[dim] // mesh[axis]
        offsets[dim] = point[axis] * local[dim]
    return replace(param, shape=tuple(local), memory=None), tuple(offsets)


def _axes(layout: Any) -> list[int | None] | None:
    """The mesh axis of every dimension (None: replicated), or None for what is no layout."""
    parts: Any = getattr(layout, "partitions", layout)
    if not isinstance(parts, list | tuple):
        return None
    return [getattr(part, "axis", None) for part in cast("list[Any]", parts)]


def shifted(body: tuple[ir.Stmt, ...], name: str, offsets: Offsets) -> tuple[ir.Stmt, ...]:
    """The statements with `offsets` added to the indices of one array."""

    def add(indices: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        return tuple(
            ir.Binary("+", index, ir.Const(offset, INDEX, index.span), INDEX, index.span) if offset else index
            for index, offset in zip(indices, offsets, strict=False)
        )

    def visit(node: Any) -> Any:
        match node:
            case ir.Load() | ir.Store() if node.buffer == name:
                return replace(node, indices=add(node.indices))
            case ir.View() if node.buffer == name:
                if any(o is not None for o in offsets[len(node.indices) :]):
                    hint = "pass elements or rows, or copy the tile into a local array first"
                    raise BackendError("FX403", f"a tile of {name} is passed as a whole", node.span, hint)
                return replace(node, indices=add(node.indices))
            case _:
                return None

    rewriter: Callable[[Any], Any] = visit
    return rewrite(body, rewriter)  # pyright: ignore[reportReturnType]


__all__ = ["Offsets", "shard", "shifted"]
