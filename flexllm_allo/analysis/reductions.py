"""Statements of the form ``C[idx] = C[idx] op expr``, and which of them may be reordered."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir import nodes as ir
from ..ir.dtypes import DType, Index
from ..ir.walk import walk
from .syntax import same_expr

_OPS = frozenset({"+", "-", "*", "min", "max", "&", "|", "^"})


@dataclass(frozen=True, eq=False)
class Reduction:
    """An accumulation. `exact`: the result does not depend on the order of the iterations."""

    buffer: str
    op: str
    load: ir.Load
    exact: bool

    def commutes_with(self, other: Reduction) -> bool:
        """Whether iterations of the two may change places without changing any bit."""
        return self.exact and other.exact and self.op == other.op and self.buffer == other.buffer


def reduction(store: ir.Store) -> Reduction | None:
    """The accumulation a store performs, or None when it is not one."""
    value, outer = _through_casts(store.value)
    if not isinstance(value, ir.Binary) or value.op not in _OPS:
        return None
    sides = [(value.left, value.right), (value.right, value.left)]
    for side, rest in sides[:1] if value.op == "-" else sides:
        load, _ = _through_casts(side)
        if not isinstance(load, ir.Load) or not _same_element(load, store):
            continue
        if any(isinstance(n, ir.Load) and n.buffer == store.buffer for n in walk(rest)):
            return None
        if any(isinstance(n, ir.Load) and n.buffer == store.buffer for i in store.indices for n in walk(i)):
            return None
        exact = _exact(store.value.type, value, side, rest, outer)
        # A sum of negated terms is a sum.
        return Reduction(store.buffer, "+" if value.op == "-" else value.op, load, exact)
    return None


def _through_casts(expr: ir.Expr) -> tuple[ir.Expr, tuple[DType, ...]]:
    """The expression below conversions, and the types it goes through on its way out."""
    types: list[DType] = []
    while isinstance(expr, ir.Cast):
        types.append(expr.type)
        expr = expr.value
    return expr, tuple(reversed(types))


def _same_element(load: ir.Load, store: ir.Store) -> bool:
    return (
        load.buffer == store.buffer
        and len(load.indices) == len(store.indices)
        and all(same_expr(a, b) for a, b in zip(load.indices, store.indices, strict=True))
    )


def _exact(element: DType, value: ir.Binary, side: ir.Expr, rest: ir.Expr, outer: tuple[DType, ...]) -> bool:
    """Whether the accumulation is associative and commutative in all its bits.

    Sums and products of integers are so modulo 2**bits as long as no step is narrower than the
    element; minimum and maximum as long as no step cuts a value off.
    """
    _, inner = _through_casts(side)
    steps = (*inner, value.type, *outer)
    if element.is_integer:
        if not all(t.is_integer for t in steps):
            return False
        if value.op in ("min", "max"):
            return all(_holds(t, element) for t in inner) and _holds(element, _origin(rest))
        return all(t.bits >= element.bits for t in steps)
    if element.is_fixed and value.op in ("+", "-"):
        # Dropped fraction bits are floored, so floor(acc + x) = acc + floor(x).
        return all(t.is_fixed and t.fracs >= element.fracs and t.bits >= element.bits for t in steps)
    return False


def _origin(expr: ir.Expr) -> DType:
    """The narrowest type a widened value came from."""
    while isinstance(expr, ir.Cast) and expr.value.type.is_integer and _holds(expr.type, expr.value.type):
        expr = expr.value
    return expr.type


def _holds(outer: DType, inner: DType) -> bool:
    """Whether every value of the integer type `inner` is a value of `outer`."""
    if isinstance(outer, Index) or isinstance(inner, Index):
        return outer == inner or (isinstance(inner, Index) and outer.is_integer and outer.bits > 32)
    if not (outer.is_integer and inner.is_integer):
        return False
    if inner.signed and not outer.signed:
        return False
    return outer.bits >= inner.bits + (1 if outer.signed and not inner.signed else 0)
