"""Integers that are known before a run: loop variables and scalars, and what is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...backend.scalars import binary, convert, is_true, unary
from ...errors import Span
from ...ir import nodes as ir


class Unknown(Exception):
    """A value depends on data. `name` is the scalar or the array it is read from."""

    def __init__(self, name: str, span: Span) -> None:
        super().__init__(name)
        self.name, self.span = name, span


@dataclass(slots=True)
class Known:
    """The loop variables and scalar buffers of one function whose values are known."""

    loops: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    scalars: dict[str, int] = field(default_factory=lambda: dict[str, int]())

    def copy(self) -> Known:
        return Known(dict(self.loops), dict(self.scalars))

    def forget(self, names: Iterable[str]) -> None:
        """Scalars that have taken a value nobody knows."""
        for name in names:
            self.scalars.pop(name, None)

    def store(self, name: str, expr: ir.Expr) -> None:
        """A scalar takes the value of an expression, or becomes unknown."""
        try:
            self.scalars[name] = evaluate(expr, self)
        except Unknown:
            self.scalars.pop(name, None)


def evaluate(expr: ir.Expr, known: Known) -> int:
    """The value of an integer expression, by the language's own arithmetic.

    Raises:
        Unknown: it depends on data.
    """
    match expr:
        case ir.Const(int() as value):
            return value
        case ir.LoopVar(name) if name in known.loops:
            return known.loops[name]
        case ir.Load(name, ()) if name in known.scalars:
            return known.scalars[name]
        case ir.Cast(value) if value.type.is_integer and expr.type.is_integer:
            return int(convert(evaluate(value, known), value.type, expr.type))
        case ir.Unary(op, value) if expr.type.is_integer:
            return int(unary(op, evaluate(value, known), expr.type))
        case ir.Binary(op, left, right) if left.type.is_integer and right.type.is_integer:
            return _binary(expr, op, evaluate(left, known), evaluate(right, known))
        case ir.Logic(op, left, right):
            first = is_true(evaluate(left, known))
            return int(first) if first == (op == "or") else int(is_true(evaluate(right, known)))
        case ir.Select(condition, then, otherwise):
            return evaluate(then if is_true(evaluate(condition, known)) else otherwise, known)
        case _:
            raise Unknown(_source(expr), expr.span)


def _binary(expr: ir.Binary, op: str, a: int, b: int) -> int:
    try:
        return int(binary(op, a, b, expr.left.type, expr.right.type, expr.type))
    except ZeroDivisionError:
        raise Unknown("a division by zero", expr.span) from None


def _source(expr: ir.Expr) -> str:
    match expr:
        case ir.Load(name) | ir.LoopVar(name):
            return f'"{name}"'
        case _:
            return "a value that is no integer"


__all__ = ["Known", "Unknown", "evaluate"]
