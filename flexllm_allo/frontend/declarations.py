"""Declarations whose value is fixed when the kernel is compiled: ``ConstExpr`` and ``Stateful``."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FrontendError, Place
from ..ir import nodes as ir
from ..ir.convert import constant_as
from ..ir.dtypes import ArrayType
from .context import ConstSymbol, Context
from .names import NotConstant


def declare_constant(ctx: Context, name: str, declared: ArrayType, node: ast.AnnAssign) -> None:
    """``n: ConstExpr[int32] = value``: a number computed by Python.

    Raises:
        FrontendError: FX113 there is no value, or none that Python can compute; FX111 set again.
    """
    before = ctx.where(name)
    if before is not None and name in ctx.scopes[-1].symbols:
        places = [Place(ctx.span(node)), Place(before, "first")]
        raise FrontendError("FX111", f"ConstExpr variable '{name}' cannot be set again", places)
    if node.value is None:
        raise ctx.error("FX113", f"ConstExpr variable '{name}' must be initialized", node)
    value = ctx.require_constant(node.value, f"ConstExpr variable '{name}'")
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if not isinstance(value, int | float):
        message = f"ConstExpr variable '{name}' must be a number, got {value!r}"
        raise ctx.error("FX113", message, node.value)
    if not declared.dtype.is_float and not declared.dtype.is_fixed:
        value = constant_as(value, declared.dtype).value
    ctx.bind(name, ConstSymbol(value), node)


def declare_stateful(ctx: Context, name: str, declared: ArrayType, node: ast.AnnAssign) -> None:
    """``acc: int32 @ Stateful = 0``: a variable of the built module, zero at first by default.

    Raises:
        FrontendError: FX113 the initial value is not known at compile time; FX105 of another shape.
    """
    value: Any = 0
    if node.value is not None:
        message = f"Stateful variable '{name}' must be initialized with a compile-time constant"
        try:
            value = ctx.constant(node.value)
        except NotConstant:
            raise ctx.error("FX113", message, node.value) from None
        if not isinstance(value, int | float | list | tuple | np.ndarray | np.generic):
            raise ctx.error("FX113", message, node.value)
    given = constant_array(ctx, value, node)
    if given.shape and given.shape != declared.shape:
        message = f"Shape mismatch, got {given.shape} and {declared.shape}"
        raise ctx.error("FX105", message, node.value or node)
    init = flat_contents(np.broadcast_to(given, declared.shape), declared)
    buffer = ctx.declare(name, declared.dtype, declared.shape, node, memory=declared.memory)
    ctx.emit(ir.Alloc(buffer, init, ctx.span(node), static=True))


def constant_array(ctx: Context, value: Any, node: ast.AST) -> NDArray[Any]:
    """A list, tuple or NumPy array of numbers known at compile time.

    Raises:
        FrontendError: FX105 rows of different lengths; FX104 elements that are no numbers.
    """
    try:
        array: NDArray[Any] = np.asarray(value)
    except ValueError:
        raise ctx.error("FX105", "the rows of a constant array must have one length", node) from None
    if array.dtype.kind in "OSUV" and not all(isinstance(x, int) for x in array.ravel().tolist()):
        raise ctx.error("FX104", "the elements of a constant array must be numbers", node)
    return array


def flat_contents(array: NDArray[Any], declared: ArrayType) -> tuple[int | float, ...]:
    """Raw contents of a buffer, flat and row-major, converted to its type."""
    return tuple(constant_as(x, declared.dtype).value for x in array.reshape(-1).tolist())
