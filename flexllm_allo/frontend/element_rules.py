"""Intrinsics of one element: what they are on scalars, and on arrays at every index."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence

from ..ir import nodes as ir
from ..ir.convert import cast, constant_as
from ..ir.dtypes import DType
from .context import Context

Operands = Sequence[ir.Expr]
Rule = Callable[[Context, Operands, ast.expr], ir.Expr]


def _arithmetic(op: str) -> Rule:
    def rule(ctx: Context, operands: Operands, node: ast.expr) -> ir.Expr:
        left, right = operands
        return cast(ctx.lowering.binary(ctx, op, left, right, node), left.type, ctx.span(node))

    return rule


def _relu(ctx: Context, operands: Operands, node: ast.expr) -> ir.Expr:
    (x,) = operands
    return ir.Binary("max", x, constant_as(0, x.type, x.span), x.type, ctx.span(node))


def _gelu(ctx: Context, operands: Operands, node: ast.expr) -> ir.Expr:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): Hendrycks and Gimpel, arXiv 1606.08415."""
    (x,) = operands
    require_float(ctx, "gelu", x.type, node)
    span, t = ctx.span(node), x.type

    def number(value: float) -> ir.Expr:
        return constant_as(value, t, span)

    def product(*factors: ir.Expr) -> ir.Expr:
        out = factors[0]
        for factor in factors[1:]:
            out = ir.Binary("*", out, factor, t, span)
        return out

    cubic = ir.Binary("+", x, product(number(0.044715), x, x, x), t, span)
    curve = ir.Math("tanh", (product(number(math.sqrt(2 / math.pi)), cubic),), t, span)
    return product(number(0.5), x, ir.Binary("+", number(1.0), curve, t, span))


def require_float(ctx: Context, name: str, t: DType, node: ast.expr) -> None:
    """Float math is no function of integers or fixed point."""
    if not t.is_float:
        hint = "convert the operand to a float type first"
        raise ctx.error("FX109", f"{name} is defined for floats, got {t}", node, hint)


ELEMENT_RULES: dict[str, Rule] = {
    "add": _arithmetic("+"),
    "sub": _arithmetic("-"),
    "mul": _arithmetic("*"),
    "div": _arithmetic("/"),
    "relu": _relu,
    "gelu": _gelu,
}
"""By the name of the intrinsic. The result has the type of the first operand."""
