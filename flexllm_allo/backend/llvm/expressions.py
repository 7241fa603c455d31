"""Expressions and accesses of the IR as LLVM text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ...errors import Span
from ...ir import nodes as ir
from ...ir.dtypes import INDEX, Float
from ...ir.walk import walk
from ..containers import is_signed, width
from . import casts, operators
from .frame import Frame, Scope, Slot, alignment, element_type, literal, register_type


class Expressions:
    """Writes expressions into a frame, with names looked up in a scope."""

    def __init__(self, frame: Frame, scope: Scope) -> None:
        self.frame = frame
        self.scope = scope

    def value(self, e: ir.Expr) -> str:
        """The register (or literal) that holds the value of `e`."""
        f = self.frame
        match e:
            case ir.Const():
                return literal(e.value, e.type)
            case ir.LoopVar():
                name, home = self.scope.loops[e.name]
                return f.use(name, "i64", home)
            case ir.Load():
                slot = self.scope.buffers[e.buffer]
                return casts.load(f, self.pointer(slot, e.indices), slot.dtype, alignment(slot.dtype))
            case ir.Binary():
                a, b = self.value(e.left), self.value(e.right)
                flags = "nsw " if e.op in "+-*" and e.type == INDEX and _magnitude(e) < 64 else ""
                return operators.binary(f, e, a, b, flags)
            case ir.Cast():
                return casts.cast(f, self.value(e.value), e.value.type, e.type)
            case ir.Unary():
                return self._unary(e)
            case ir.Logic():
                return self._logic(e)
            case ir.Select():
                return self._select(e)
            case ir.Bitcast():
                return casts.bitcast(f, self.value(e.value), e.value.type, e.type)
            case ir.BitSlice():
                return operators.bit_slice(f, self.value(e.value), self.index(e.lo), e)
            case ir.Math():
                return operators.math_function(f, e.name, [self.value(a) for a in e.args], e.type)

    def index(self, e: ir.Expr) -> str:
        """An expression of any integer type as an i64."""
        return casts.resize(self.frame, self.value(e), width(e.type), 64, is_signed(e.type))

    def condition(self, e: ir.Expr) -> str:
        """An expression as an i1."""
        return operators.truth(self.frame, self.value(e), e.type)

    def pointer(self, slot: Slot, indices: Sequence[ir.Expr]) -> str:
        """The address of an element, or of a sub-array."""
        base = self.frame.use(slot.pointer, "ptr", slot.home)
        if not indices:
            return base
        shape = element_type(slot.dtype)
        for extent in reversed(slot.shape[1:]):
            shape = f"[{extent} x {shape}]"
        path = ", ".join(f"i64 {self.index(i)}" for i in indices)
        return self.frame.op(f"getelementptr inbounds {shape}, ptr {base}, {path}")

    def _unary(self, e: ir.Unary) -> str:
        f, value, kind = self.frame, self.value(e.value), register_type(e.type)
        if e.op == "not":
            return f.op(f"xor i1 {operators.truth(f, value, e.value.type)}, true")
        if isinstance(e.type, Float):
            return f.op(f"fneg {kind} {value}")
        changed = f.op(f"sub {kind} 0, {value}" if e.op == "-" else f"xor {kind} {value}, -1")
        return casts.wrap_to(f, changed, e.type)

    def _logic(self, e: ir.Logic) -> str:
        f, left = self.frame, self.condition(e.left)
        if _may_trap(e.right):
            if e.op == "and":
                return f.choose(left, lambda: self.condition(e.right), lambda: "false", "i1")
            return f.choose(left, lambda: "true", lambda: self.condition(e.right), "i1")
        right = self.condition(e.right)
        sides = f"i1 {right}, i1 false" if e.op == "and" else f"i1 true, i1 {right}"
        return f.op(f"select i1 {left}, {sides}")

    def _select(self, e: ir.Select) -> str:
        f, condition, kind = self.frame, self.condition(e.condition), register_type(e.type)
        if _may_trap(e.then) or _may_trap(e.otherwise):
            return f.choose(condition, lambda: self.value(e.then), lambda: self.value(e.otherwise), kind)
        then, otherwise = self.value(e.then), self.value(e.otherwise)
        return f.op(f"select i1 {condition}, {kind} {then}, {kind} {otherwise}")

    def is_reduction(self, stmt: ir.Store) -> bool:
        """Whether this is ``A[i] = A[i] + x`` on floats, inside a loop that lets sums be reordered."""
        value = stmt.value
        if not (self.scope.reassociate and isinstance(value, ir.Binary) and value.op in ("+", "-")):
            return False
        if not isinstance(value.type, Float) or value.type.bits == 16:
            return False
        sides = (value.left, value.right) if value.op == "+" else (value.left,)
        return any(
            isinstance(side, ir.Load) and side.buffer == stmt.buffer and same(side.indices, stmt.indices)
            for side in sides
        )


def _may_trap(e: ir.Expr) -> bool:
    """Whether evaluating `e` needlessly could touch memory out of bounds."""
    return any(isinstance(n, ir.Load) and n.indices for n in walk(e))


def _magnitude(e: ir.Expr) -> int:
    """Bits of the magnitude of an index made of loop variables and literals; of anything else, too many."""
    if isinstance(e, ir.LoopVar):
        return 32
    if isinstance(e, ir.Const):
        return int(e.value).bit_length()
    if isinstance(e, ir.Cast) and e.type == INDEX and e.value.type.is_integer:
        return _magnitude(e.value)
    if isinstance(e, ir.Binary) and e.op in "+-*" and e.type == INDEX:
        a, b = _magnitude(e.left), _magnitude(e.right)
        return a + b if e.op == "*" else max(a, b) + 1
    return 64


def same(a: Any, b: Any) -> bool:
    """Structural equality of expressions, whatever their places in the source."""
    if isinstance(a, tuple):
        return (
            isinstance(b, tuple)
            and len(a) == len(b)  # pyright: ignore[reportUnknownArgumentType]
            and all(map(same, a, b))  # pyright: ignore[reportUnknownArgumentType]
        )
    if is_dataclass(a) and type(a) is type(b):
        return all(
            same(getattr(a, x.name), getattr(b, x.name))
            for x in fields(a)
            if not isinstance(getattr(a, x.name), Span)
        )
    return a == b
