"""The range of values of an index expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir import nodes as ir
from ..ir.simplify import fits

Range = tuple[int, int]  # the least and the greatest value, both included


def interval(expr: ir.Expr, known: Mapping[str, Range]) -> Range | None:
    """The least and the greatest value an integer expression can have, or None.

    Args:
        expr: an index expression.
        known: ranges of loop variables and of scalars, by name.
    """
    match expr:
        case ir.Const(int() as value):
            return (value, value)
        case ir.LoopVar(name) | ir.Load(name, ()):
            return known.get(name)
        case ir.Cast(value):
            inner = interval(value, known)
            whole = expr.type.is_integer and value.type.is_integer
            return _fitting(inner, expr) if whole else None
        case ir.Unary("-", value):
            inner = interval(value, known)
            return None if inner is None else _fitting((-inner[1], -inner[0]), expr)
        case ir.Select(_, then, otherwise):
            a, b = interval(then, known), interval(otherwise, known)
            return None if a is None or b is None else hull((a, b))
        case ir.Binary(op, left, right) if expr.type.is_integer:
            a, b = interval(left, known), interval(right, known)
            return None if a is None or b is None else _fitting(_binary(op, a, b), expr)
        case _:
            return None


def loop_range(loop: ir.For, known: Mapping[str, Range]) -> Range | None:
    """The values of a loop's variable; (0, -1) when it does not run."""
    lower, upper = interval(loop.lower, known), interval(loop.upper, known)
    if lower is None or upper is None:
        return None
    if lower[0] >= upper[1]:
        return (0, -1)
    last = upper[1] - 1
    exact = lower[0] == lower[1] and upper[0] == upper[1]
    return (lower[0], lower[0] + (last - lower[0]) // loop.step * loop.step if exact else last)


def ranges(loops: Iterable[ir.For], known: Mapping[str, Range] | None = None) -> dict[str, Range] | None:
    """The values of the variables of nested loops, outermost first; None if one is not known."""
    out = dict(known or {})
    for loop in loops:
        found = loop_range(loop, out)
        if found is None:
            return None
        out[loop.var] = found
    return out


def hull(parts: Iterable[Range]) -> Range:
    """The smallest range that holds all of these."""
    listed = list(parts)
    return (min(p[0] for p in listed), max(p[1] for p in listed))


def _fitting(value: Range | None, expr: ir.Expr) -> Range | None:
    return value if value is not None and all(fits(v, expr.type) for v in value) else None


def _binary(op: str, a: Range, b: Range) -> Range | None:
    match op:
        case "+":
            return (a[0] + b[0], a[1] + b[1])
        case "-":
            return (a[0] - b[1], a[1] - b[0])
        case "*":
            return hull((x * y, x * y) for x in a for y in b)
        case "min":
            return (min(a[0], b[0]), min(a[1], b[1]))
        case "max":
            return (max(a[0], b[0]), max(a[1], b[1]))
        case "//" | "/" if b[0] == b[1] > 0:
            return (a[0] // b[0], a[1] // b[0])
        case "%" if b[0] == b[1] > 0:
            whole = a[0] // b[0] == a[1] // b[0]
            return (a[0] % b[0], a[1] % b[0]) if whole else (0, b[0] - 1)
        case _:
            return None


__all__ = ["Range", "hull", "interval", "loop_range", "ranges"]
