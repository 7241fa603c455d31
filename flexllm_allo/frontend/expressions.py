"""Expressions of the kernel language -> typed IR expressions.

One function per kind of AST node, found through `_LOWER`; that table is the list of what the
language supports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from ..ir import nodes as ir
from ..ir.convert import cast, constant_as
from ..ir.dtypes import BOOL, INDEX, INT32, DType, Float
from .calls import lower_call
from .context import ConstSymbol, Context, ElementSymbol, LoopSymbol, StreamsSymbol
from .places import bits_of, place_of, read, read_bits

_BINARY: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|",
    ast.BitXor: "^",
}  # fmt: skip
_COMPARE: dict[type, str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


def lower_expr(ctx: Context, node: ast.expr) -> ir.Expr:
    """The IR of a scalar expression.

    Raises:
        FrontendError: FX101 unsupported syntax, FX102 unknown name, FX106 bad index,
            FX109 operator not defined for the types.
    """
    if not isinstance(node, ast.Call | ast.BinOp):
        number = ctx.number(node)
        if number is not None:
            return number
    handler = _LOWER.get(type(node))
    if handler is None:
        name = type(node).__name__
        hint = "docs/language.md lists the expressions a kernel may use"
        raise ctx.error("FX101", f'Unsupported node "{name}" in a kernel', node, hint)
    return handler(ctx, node)


def binary(ctx: Context, op: str, left: ir.Expr, right: ir.Expr, node: ast.AST) -> ir.Expr:
    """``left op right`` with the promotion rules applied and the casts made explicit."""
    span = ctx.span(node)
    left, right = match_literals(left, right)
    t = ctx.result_type(op, left.type, right.type, node)
    if op in ("<<", ">>"):
        return ir.Binary(op, left, right, t, span)
    if op == "*" and not t.is_float and t != INDEX:
        return ir.Binary(op, left, right, t, span)
    if op == "**":
        return ir.Math("power", (cast(left, t), cast(right, t)), t, span)
    if op in ("/", "//"):
        wide = t if t.is_fixed or t.is_float else ctx.common_type(left.type, right.type, node)
        return _division(op, left, right, t, wide, span)
    return ir.Binary(op, cast(left, t), cast(right, t), t, span)


def match_literals(left: ir.Expr, right: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
    """A literal beside a float takes that float's type (0.1 stays exact beside a float64)."""
    if isinstance(left, ir.Const) and isinstance(right.type, Float) and not left.type.is_fixed:
        return cast(left, right.type), right
    if isinstance(right, ir.Const) and isinstance(left.type, Float) and not right.type.is_fixed:
        return left, cast(right, left.type)
    return left, right


def _division(op: str, left: ir.Expr, right: ir.Expr, t: DType, wide: DType, span: Any) -> ir.Expr:
    """Integers divide in their common type, then take the width of the left one."""
    if t.is_fixed:
        return ir.Binary("/", left, right, t, span)
    if t.is_float:
        return ir.Binary(op, cast(left, t), cast(right, t), t, span)
    return cast(ir.Binary("//", cast(left, wide), cast(right, wide), wide, span), t, span)


def truth(ctx: Context, value: ir.Expr, node: ast.AST) -> ir.Expr:
    """A condition: a bool as it is, any other number compared with zero."""
    if value.type == BOOL:
        return value
    zero = constant_as(0, value.type, value.span)
    return ir.Binary("!=", value, zero, BOOL, ctx.span(node))


def lower_condition(ctx: Context, node: ast.expr) -> ir.Expr:
    """A condition of type bool."""
    return truth(ctx, lower_expr(ctx, node), node)


def lower_index(ctx: Context, node: ast.expr) -> ir.Expr:
    """An index or loop bound: arithmetic of loop variables and literals stays of type index."""
    value = ctx.number(node)
    if value is not None:
        return cast(value, INDEX)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        op = _BINARY[type(node.op)]
        if op in ("+", "-", "*", "//", "%"):
            left, right = lower_index(ctx, node.left), lower_index(ctx, node.right)
            if isinstance(left, ir.Const) and isinstance(right, ir.Const):
                return _fold_index(op, int(left.value), int(right.value), ctx, node)
            return ir.Binary(op, left, right, INDEX, ctx.span(node))
    return cast(lower_expr(ctx, node), INDEX, ctx.span(node))


def _fold_index(op: str, a: int, b: int, ctx: Context, node: ast.BinOp) -> ir.Const:
    if op in ("//", "%") and b == 0:
        raise ctx.error("FX106", "division by zero in an index", node)
    values = {"+": a + b, "-": a - b, "*": a * b, "//": b and a // b, "%": b and a % b}
    return ir.Const(values[op], INDEX, ctx.span(node))


# ------------------------------------------------------------------------- one per kind of node


def _name(ctx: Context, node: ast.Name) -> ir.Expr:
    symbol = ctx.find(node.id)
    span = ctx.span(node)
    if isinstance(symbol, LoopSymbol):
        return ir.LoopVar(symbol.var, INDEX, span)
    if isinstance(symbol, ElementSymbol):
        return symbol.value
    if isinstance(symbol, ir.Buffer):
        if symbol.shape or symbol.is_stream:
            what = "a stream; read it with .get()" if symbol.is_stream else "an array"
            raise ctx.error("FX104", f"{node.id} is {what}, a scalar is needed here", node)
        return ir.Load(symbol.name, (), symbol.dtype, span)
    if isinstance(symbol, StreamsSymbol):
        raise ctx.error("FX104", f"{node.id} is a stream; read it with .get(), a scalar is needed here", node)
    if isinstance(symbol, ConstSymbol) or node.id in ctx.names:
        raise ctx.error("FX104", f"{node.id} is no number", node)
    raise ctx.unknown_name(node)


def _constant(ctx: Context, node: ast.Constant) -> ir.Expr:
    raise ctx.error("FX101", f"literal {node.value!r} is no number", node)


def _binop(ctx: Context, node: ast.BinOp) -> ir.Expr:
    op = _BINARY.get(type(node.op))
    if op is None:
        raise ctx.error("FX101", f'Unsupported node "{type(node.op).__name__}" in a kernel', node)
    if op != "/" and _all_literals(node):  # sizes such as M // 2; a / b keeps the kernel's rule
        number = ctx.number(node)
        if number is not None:
            return number
    return binary(ctx, op, lower_expr(ctx, node.left), lower_expr(ctx, node.right), node)


def _all_literals(node: ast.AST) -> bool:
    return not any(isinstance(n, ast.Call | ast.Div) for n in ast.walk(node))


def _unary(ctx: Context, node: ast.UnaryOp) -> ir.Expr:
    span = ctx.span(node)
    if isinstance(node.op, ast.Not):
        return ir.Unary("not", lower_condition(ctx, node.operand), BOOL, span)
    value = lower_expr(ctx, node.operand)
    if isinstance(node.op, ast.UAdd):
        return value
    if isinstance(node.op, ast.Invert):
        if not value.type.is_integer:
            raise ctx.error("FX109", f"operator ~ is not defined for {value.type}", node)
        value = cast(value, INT32) if value.type == INDEX else value
        return ir.Unary("~", value, value.type, span)
    t = ctx.negative_type(value.type, node)
    return ir.Unary("-", cast(value, t), t, span)


def _compare(ctx: Context, node: ast.Compare) -> ir.Expr:
    op = _COMPARE.get(type(node.ops[0]))
    if len(node.ops) > 1:
        hint = "join two comparisons with `and`"
        raise ctx.error("FX101", "Only support one comparator for now", node, hint)
    if op is None:
        raise ctx.error("FX101", f'Unsupported node "{type(node.ops[0]).__name__}"', node)
    left, right = match_literals(lower_expr(ctx, node.left), lower_expr(ctx, node.comparators[0]))
    t = ctx.common_type(left.type, right.type, node)
    return ir.Binary(op, cast(left, t), cast(right, t), BOOL, ctx.span(node))


def _boolop(ctx: Context, node: ast.BoolOp) -> ir.Expr:
    op = "and" if isinstance(node.op, ast.And) else "or"
    value = lower_condition(ctx, node.values[0])
    for item in node.values[1:]:
        with ctx.block() as needed:
            right = lower_condition(ctx, item)
        if needed:
            value = _short_circuit(ctx, op, value, needed, right, node)
        else:
            value = ir.Logic(op, value, right, BOOL, ctx.span(node))
    return value


def _short_circuit(
    ctx: Context, op: str, left: ir.Expr, needed: list[ir.Stmt], right: ir.Expr, node: ast.BoolOp
) -> ir.Expr:
    """A right side that needs statements, such as a call, runs only where the left leaves it open."""
    span = ctx.span(node)
    held = ctx.temporary("held", BOOL, node)
    ctx.emit(ir.Store(held.name, (), left, span))
    known = ir.Load(held.name, (), BOOL, span)
    decide = (*needed, ir.Store(held.name, (), right, span))
    ctx.emit(ir.If(known, decide, (), span) if op == "and" else ir.If(known, (), decide, span))
    return known


def _ifexp(ctx: Context, node: ast.IfExp) -> ir.Expr:
    condition, span = lower_condition(ctx, node.test), ctx.span(node)
    with ctx.block() as first:
        then = lower_expr(ctx, node.body)
    with ctx.block() as second:
        other = lower_expr(ctx, node.orelse)
    then, other = match_literals(then, other)
    t = ctx.common_type(then.type, other.type, node)
    then, other = cast(then, t), cast(other, t)
    if not first and not second:
        return ir.Select(condition, then, other, t, span)
    held = ctx.temporary("held", t, node)
    first.append(ir.Store(held.name, (), then, span))
    second.append(ir.Store(held.name, (), other, span))
    ctx.emit(ir.If(condition, tuple(first), tuple(second), span))
    return ir.Load(held.name, (), t, span)


def _subscript(ctx: Context, node: ast.Subscript) -> ir.Expr:
    place = place_of(ctx, node)
    if place is not None:
        return read(ctx, place, node)
    base, subscripts = flatten_subscript(node)
    if isinstance(base, ast.Name):
        symbol = ctx.find(base.id)
        if symbol is None and base.id not in ctx.names:
            raise ctx.unknown_name(base)
        if isinstance(symbol, ir.Buffer):
            left = symbol.shape[len(subscripts) :]
            message = f"`{ast.unparse(node)}` is an array of shape {left}, a scalar is needed here"
            raise ctx.error("FX105", message, node)
        if symbol is None and not ctx.lowering.is_array(ctx, base):
            raise ctx.error("FX104", f"{base.id} is no array", node)
    if (element := ctx.lowering.element(ctx, node)) is not None:
        return element
    value = lower_expr(ctx, base)
    bits = bits_of(ctx, value.type, subscripts, node)
    return read_bits(value, bits, node, ctx) if bits else value


def flatten_subscript(node: ast.Subscript) -> tuple[ast.expr, list[ast.expr]]:
    """``A[i][j, k]`` -> (A, [i, j, k])."""
    items: list[ast.expr] = []
    base: ast.expr = node
    while isinstance(base, ast.Subscript):
        part = base.slice
        items = [*(part.elts if isinstance(part, ast.Tuple) else [part]), *items]
        base = base.value
    return base, items


def check_index(ctx: Context, buffer: ir.Buffer, dim: int, node: ast.expr) -> ir.Expr:
    """One index of an access; constant ones are checked against the extent."""
    if isinstance(node, ast.Slice):
        raise ctx.error("FX106", "a slice cannot stand here", node)
    index = lower_index(ctx, node)
    if isinstance(index, ir.Const) and not 0 <= index.value < buffer.shape[dim]:
        what = "Unsupported negative index" if index.value < 0 else "Index out of range"
        raise ctx.error(
            "FX106",
            f"{what}: {index.value} in dimension {dim + 1} of {buffer.name}, "
            f"which has {buffer.shape[dim]} elements",
            node,
        )
    return index


def _call(ctx: Context, node: ast.Call) -> ir.Expr:
    value = lower_call(ctx, node)
    if not isinstance(value, list):
        return value
    if len(value) != 1 or value[0].shape:
        raise ctx.error("FX107", f"`{ast.unparse(node.func)}` does not return a scalar", node)
    return ir.Load(value[0].name, (), value[0].dtype, ctx.span(node))


_LOWER: dict[type, Callable[[Context, Any], ir.Expr]] = {
    ast.Name: _name,
    ast.Constant: _constant,
    ast.BinOp: _binop,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.BoolOp: _boolop,
    ast.IfExp: _ifexp,
    ast.Subscript: _subscript,
    ast.Call: _call,
}


def operator_name(op: ast.operator) -> str | None:
    """The IR's name of an AST operator, or None when the language has none."""
    return _BINARY.get(type(op))
