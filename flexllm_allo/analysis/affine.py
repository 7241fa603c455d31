"""Index expressions as linear forms of loop variables.

A form is ``sum(coefficient * term) + constant``.  A term is the name of a loop variable, a
`Symbol` (a scalar that keeps its value, such as a run-time bound) or a `Quotient` (``form // c``,
kept exact: ``x % c`` becomes ``x - c * (x // c)``).  What has no such form is None, and everything
built on it must assume the worst.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..ir import nodes as ir
from ..ir.dtypes import DType, Index, Int, UInt


@dataclass(frozen=True)
class Symbol:
    """The value of a scalar that nothing in the loops considered writes."""

    name: str


@dataclass(frozen=True)
class Quotient:
    """``floor(value / divisor)`` with a positive constant divisor."""

    value: Affine
    divisor: int


Term = str | Symbol | Quotient


@dataclass(frozen=True)
class Affine:
    """``sum(coefficient * term) + constant``; terms are ordered, so equal forms compare equal."""

    terms: tuple[tuple[Term, int], ...] = ()
    constant: int = 0

    @staticmethod
    def of(terms: dict[Term, int], constant: int) -> Affine:
        kept = [(t, c) for t, c in terms.items() if c]
        return Affine(tuple(sorted(kept, key=lambda item: repr(item[0]))), constant)

    def __add__(self, other: Affine) -> Affine:
        terms = dict(self.terms)
        for t, c in other.terms:
            terms[t] = terms.get(t, 0) + c
        return Affine.of(terms, self.constant + other.constant)

    def __mul__(self, factor: int) -> Affine:
        return Affine.of({t: c * factor for t, c in self.terms}, self.constant * factor)

    def __sub__(self, other: Affine) -> Affine:
        return self + other * -1

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def variables(self) -> set[str]:
        """Loop variables the form depends on."""
        names: set[str] = set()
        for term, _ in self.terms:
            if isinstance(term, str):
                names.add(term)
            elif isinstance(term, Quotient):
                names |= term.value.variables()
        return names


def affine(expr: ir.Expr, written: Collection[str] = ()) -> Affine | None:
    """The linear form of an integer expression, or None.

    Args:
        expr: an index expression.
        written: buffers whose value may change between the places compared; other scalars are symbols.
    """
    match expr:
        case ir.Const(int() as value) if expr.type.is_integer:
            return Affine((), value)
        case ir.LoopVar(name):
            return Affine(((name, 1),))
        case ir.Load(buffer, ()) if expr.type.is_integer and buffer not in written:
            return Affine(((Symbol(buffer), 1),))
        case ir.Cast(value) if _keeps(value.type, expr.type):
            return affine(value, written)
        case ir.Unary("-", value) if _wide(expr.type):
            inner = affine(value, written)
            return None if inner is None else inner * -1
        case ir.Binary(op, left, right) if _wide(expr.type):
            a, b = affine(left, written), affine(right, written)
            return None if a is None or b is None else _combine(op, a, b)
        case _:
            return None


def lower_bounds(expr: ir.Expr, written: Collection[str] = ()) -> list[Affine]:
    """Forms that are all at most the value of a lower bound (``max`` gives several)."""
    return _bounds(expr, "max", written)


def upper_bounds(expr: ir.Expr, written: Collection[str] = ()) -> list[Affine]:
    """Forms that are all at least the value of an upper bound (``min`` gives several)."""
    return _bounds(expr, "min", written)


def _bounds(expr: ir.Expr, op: str, written: Collection[str]) -> list[Affine]:
    match expr:
        case ir.Cast(value) if _keeps(value.type, expr.type):
            return _bounds(value, op, written)
        case ir.Binary(name, left, right) if name == op:
            return _bounds(left, op, written) + _bounds(right, op, written)
        case _:
            form = affine(expr, written)
            return [] if form is None else [form]


def _wide(dtype: DType) -> bool:
    """Index arithmetic in these types is taken not to wrap."""
    return isinstance(dtype, Index) or (isinstance(dtype, Int | UInt) and dtype.bits >= 32)


def _keeps(source: DType, target: DType) -> bool:
    """Whether a conversion between integers keeps every value (indices fit 32 bits)."""
    if not (source.is_integer and target.is_integer):
        return False
    if _wide(target):
        return True
    grows = target.bits > source.bits if target.signed else target.bits >= source.bits
    return grows and (target.signed or not source.signed)


def _combine(op: str, a: Affine, b: Affine) -> Affine | None:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*" if b.is_constant:
            return a * b.constant
        case "*" if a.is_constant:
            return b * a.constant
        case "//" | "/" if b.is_constant and b.constant > 0:
            return _quotient(a, b.constant)
        case "%" if b.is_constant and b.constant > 0:
            return a - _quotient(a, b.constant) * b.constant
        case "<<" if b.is_constant and 0 <= b.constant < 32:
            return a * (1 << b.constant)
        case ">>" if b.is_constant and 0 <= b.constant < 32:
            return _quotient(a, 1 << b.constant)
        case _:
            return None


def _quotient(value: Affine, divisor: int) -> Affine:
    """Terms that the divisor divides leave the quotient exactly."""
    whole = {t: c // divisor for t, c in value.terms if c % divisor == 0}
    rest = Affine.of({t: c for t, c in value.terms if c % divisor}, value.constant % divisor)
    base = Affine.of(whole, value.constant // divisor)
    if rest.is_constant:
        return base
    return base + Affine(((Quotient(rest, divisor), 1),))
