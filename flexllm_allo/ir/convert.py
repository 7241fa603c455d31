"""Casts and constants: folding what is known, so that emitted programs stay readable."""

from __future__ import annotations

import math
import struct

from ..errors import UNKNOWN, Span
from . import nodes as ir
from .dtypes import FLOAT32, INDEX, INT32, DType, Float, Int


def wrap(value: int, t: DType) -> int:
    """The low bits of a raw value, read by the signedness of `t` (index: 64-bit signed)."""
    bits, signed = (64, True) if t == INDEX else (t.bits, t.signed)
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def round_float(value: float, t: DType) -> float:
    """The nearest value of a float type, ties to even."""
    if t.bits == 64 or math.isnan(value) or math.isinf(value):
        return value
    if (t.bits, t.fracs) == (16, 7):
        raw = struct.unpack("<I", struct.pack("<f", round_float(value, FLOAT32)))[0]
        raw = (raw + 0x7FFF + ((raw >> 16) & 1)) & 0xFFFF0000
        return struct.unpack("<f", struct.pack("<I", raw))[0]
    code = "<f" if t.bits == 32 else "<e"
    try:
        return struct.unpack(code, struct.pack(code, value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def literal(value: int | float | bool, span: Span = UNKNOWN) -> ir.Const:
    """A Python number in a kernel: int32 (int64, or wider, where it does not fit) or float32."""
    if isinstance(value, float):
        return ir.Const(round_float(value, FLOAT32), FLOAT32, span, exact=value)
    number = int(value)
    if wrap(number, INT32) == number:
        return ir.Const(number, INT32, span)
    return ir.Const(number, Int(max(64, number.bit_length() + 1)), span)


def constant_as(value: int | float, t: DType, span: Span = UNKNOWN) -> ir.Const:
    """A Python number converted to `t` by the rules of docs/numerics.md."""
    if isinstance(t, Float):
        return ir.Const(round_float(float(value), t), t, span)
    if t.is_fixed:
        scaled = value * 2**t.fracs if isinstance(value, int) else math.floor(value * 2.0**t.fracs)
        return ir.Const(wrap(int(scaled), t), t, span)
    if isinstance(value, float) and not math.isfinite(value):
        return ir.Const(0, t, span)
    return ir.Const(wrap(int(value), t), t, span)


def cast(value: ir.Expr, t: DType, span: Span = UNKNOWN, implicit: bool = True) -> ir.Expr:
    """`value` converted to `t`; nothing for the same type, folded for constants."""
    if value.type == t:
        return value
    if isinstance(value, ir.Const) and not value.type.is_fixed:
        return constant_as(value.value if value.exact is None else value.exact, t, value.span)
    return ir.Cast(value, t, implicit, span if span.line else value.span)
