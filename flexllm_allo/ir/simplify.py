"""Light simplification of index arithmetic, so that rewritten programs stay readable.

Only identities that hold for every value are used (``x + 0``, ``x * 1``, folding of constants that
fit their type, ``(x * c) // c``); nothing is reordered.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import UNKNOWN, Span
from . import nodes as ir
from .dtypes import INDEX, DType, Index, Int, UInt
from .walk import Node, rewrite


def const(value: int, span: Span = UNKNOWN) -> ir.Const:
    """A literal of type index."""
    return ir.Const(value, INDEX, span)


def var(name: str, span: Span = UNKNOWN) -> ir.LoopVar:
    """The value of a loop variable."""
    return ir.LoopVar(name, INDEX, span)


def binary(op: str, left: ir.Expr, right: ir.Expr | int) -> ir.Expr:
    """``left op right`` on indices, simplified. Operands of another integer type are converted."""
    b = const(right) if isinstance(right, int) else to_index(right)
    return _fold(ir.Binary(op, to_index(left), b, INDEX, left.span))


def to_index(expr: ir.Expr) -> ir.Expr:
    """The integer expression as an index."""
    return expr if isinstance(expr.type, Index) else _fold(ir.Cast(expr, INDEX, True, expr.span))


def value_of(expr: ir.Expr) -> int | None:
    """The value of a constant integer expression, else None."""
    folded = simplify(expr)
    return folded.value if isinstance(folded, ir.Const) and isinstance(folded.value, int) else None


def simplify(node: Node) -> Node:
    """Fold integer arithmetic everywhere below `node` (an expression, a statement or a body)."""
    return rewrite(node, lambda n: _fold(n) if isinstance(n, ir.Binary | ir.Cast) else None)


def fits(value: int, dtype: DType) -> bool:
    """Whether an integer is a value of the type. Index is 64 bits signed at run time."""
    match dtype:
        case Index():
            return -(1 << 63) <= value < 1 << 63
        case Int(bits):
            return -(1 << (bits - 1)) <= value < 1 << (bits - 1)
        case UInt(bits):
            return 0 <= value < 1 << bits
        case _:
            return False


def _int(expr: ir.Expr) -> int | None:
    return expr.value if isinstance(expr, ir.Const) and isinstance(expr.value, int) else None


def _fold(node: ir.Expr) -> ir.Expr:
    match node:
        case ir.Cast(ir.Const(int() as value) as inner, dtype) if inner.type.is_integer and fits(
            value, dtype
        ):
            return ir.Const(value, dtype, node.span)
        case ir.Cast(value, dtype) if value.type == dtype:
            return value
        case ir.Binary() if node.type.is_integer:
            return _fold_binary(node)
        case _:
            return node


def _fold_binary(node: ir.Binary) -> ir.Expr:
    a, b, op = _int(node.left), _int(node.right), node.op
    if a is not None and b is not None:
        value = _evaluate(op, a, b)
        if value is not None and fits(value, node.type):
            return ir.Const(value, node.type, node.span)
        return node
    if op == "*" and 0 in (a, b):
        return ir.Const(0, node.type, node.span)
    same = node.left.type == node.type
    match op, b:
        case (("+" | "-" | "<<" | ">>"), 0) if same:
            return node.left
        case (("*" | "//" | "/"), 1) if same:
            return node.left
        case "%", 1:
            return ir.Const(0, node.type, node.span)
        case (("//" | "%"), int(c)) if c > 0 and isinstance(node.type, Index):
            return _fold_multiple(node, c)
        case _:
            pass
    if ((op == "+" and a == 0) or (op == "*" and a == 1)) and node.right.type == node.type:
        return node.right
    if op == "+" and b is not None:
        return _fold_chain(node, b)
    return node


def _fold_chain(node: ir.Binary, b: int) -> ir.Expr:
    """``(x + a) + b`` is ``x + (a + b)`` and ``(x - a) + b`` is ``x + (b - a)``: indices do not wrap."""
    match node.left:
        case ir.Binary("+", x, ir.Const(int() as a)) if isinstance(node.type, Index):
            return _fold(replace(node, left=x, right=ir.Const(a + b, INDEX, node.right.span)))
        case ir.Binary("-", x, ir.Const(int() as a)) if isinstance(node.type, Index):
            op, rest = ("+", b - a) if b >= a else ("-", a - b)
            return _fold(replace(node, op=op, left=x, right=ir.Const(rest, INDEX, node.right.span)))
        case _:
            return node


def _fold_multiple(node: ir.Binary, c: int) -> ir.Expr:
    """``(x * k) // c`` and ``% c`` when c divides k."""
    match node.left:
        case ir.Binary("*", x, ir.Const(int() as k)) if k % c == 0:
            if node.op == "%":
                return ir.Const(0, node.type, node.span)
            return _fold(ir.Binary("*", x, ir.Const(k // c, INDEX), INDEX, node.span))
        case _:
            return node


def _evaluate(op: str, a: int, b: int) -> int | None:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//" | "/":
            return a // b if b else None
        case "%":
            return a % b if b else None
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case _:
            return None
