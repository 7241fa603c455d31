"""The values of integer expressions, one by one or for all copies of an unrolled body at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..ir import nodes as ir
from ..ir.walk import walk

Known = Mapping[str, Any]
"""Values of loop variables and scalars by name: numbers, or arrays of them; absent or None: not known."""

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})


def value_of(expr: ir.Expr, known: Known) -> Any:
    """The value of an integer expression or of a comparison, or None. Values are taken not to wrap."""
    match expr:
        case ir.Const(value):
            return value
        case ir.LoopVar(name) | ir.Load(name, ()):
            return known.get(name)
        case ir.Cast(value) if (expr.type.is_integer and value.type.is_integer) or expr.type.is_float:
            return value_of(value, known)
        case ir.Unary("-", value):
            inner = value_of(value, known)
            return None if inner is None else -inner
        case ir.Unary("not", value):
            inner = value_of(value, known)
            return None if inner is None else np.logical_not(inner) if np.ndim(inner) else not inner
        case ir.Binary(op, left, right) if left.type.is_integer or op in _COMPARISONS:
            a, b = value_of(left, known), value_of(right, known)
            return None if a is None or b is None else _binary(op, a, b)
        case ir.Logic(op, left, right):
            return _logic(op, value_of(left, known), value_of(right, known))
        case ir.Select(condition, then, otherwise):
            chosen = value_of(condition, known)
            if chosen is None or np.ndim(chosen):
                return None
            return value_of(then if chosen else otherwise, known)
        case _:
            return None


def _binary(op: str, a: Any, b: Any) -> Any:
    scalar = not np.ndim(a) and not np.ndim(b)
    if op == "min":
        return min(a, b) if scalar else np.minimum(a, b)
    if op == "max":
        return max(a, b) if scalar else np.maximum(a, b)
    if op in ("//", "/", "%") and np.any(np.equal(b, 0)):
        return None
    return _BINARY[op](a, b)


def _logic(op: str, a: Any, b: Any) -> Any:
    decided = op == "or"  # the value that one side alone decides
    for side in (a, b):
        if side is not None and not np.ndim(side) and bool(side) == decided:
            return decided
    if a is None or b is None:
        return None
    return np.logical_or(a, b) if decided else np.logical_and(a, b)


def names_in(*exprs: ir.Expr | ir.View) -> set[str]:
    """Loop variables and scalars that expressions read."""
    found: set[str] = set()
    for node in (n for e in exprs for n in walk(e)):
        if isinstance(node, ir.LoopVar):
            found.add(node.name)
        elif isinstance(node, ir.Load) and not node.indices:
            found.add(node.buffer)
    return found


__all__ = ["Known", "names_in", "value_of"]
