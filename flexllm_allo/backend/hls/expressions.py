"""Expressions of the IR as C++ expressions with exactly the value docs/numerics.md gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.dtypes import DType, Float, UInt
from . import values as v
from .scope import Scope
from .types import INT64, Range, carrier, storage_type, stored_range, value_bits, value_range, wraps_on_store
from .values import ATOM, PREFIX, Value

NARROW_FLOATS = ("half", "flexllm::bfloat16")  # computed in float, rounded once


def emit(expr: ir.Expr, scope: Scope) -> Value:
    """The expression as C++ text; integers and raw fixed-point values are carried natively."""
    match expr:
        case ir.Const():
            return _constant(expr)
        case ir.LoopVar():
            return scope.loop(expr.name)
        case ir.Load():
            return load(expr.type, scope.element(expr.buffer, [emit(i, scope) for i in expr.indices]))
        case ir.Unary():
            return _unary(expr, emit(expr.value, scope))
        case ir.Binary():
            return _binary(expr, emit(expr.left, scope), emit(expr.right, scope))
        case ir.Logic():
            op = "&&" if expr.op == "and" else "||"
            return v.infix(op, emit(expr.left, scope), emit(expr.right, scope), "bool")
        case ir.Select():
            return _select(expr, scope)
        case ir.Cast():
            return _cast(expr, scope)
        case ir.Bitcast():
            return _bitcast(expr, scope)
        case ir.BitSlice():
            return _bit_slice(expr, scope)
        case ir.Math():
            return _math(expr, [emit(a, scope) for a in expr.args])


def stored(expr: ir.Expr, dtype: DType, scope: Scope) -> str:
    """The expression as the right side of an assignment to a variable of that type."""
    if dtype.is_float:
        return emit(expr, scope).text
    if dtype.is_fixed:
        if isinstance(expr, ir.Load) and expr.type == dtype:
            return scope.element(expr.buffer, [emit(i, scope) for i in expr.indices])
        value = emit(expr, scope)
        return f"flexllm::from_raw<{storage_type(dtype)} >({value.text})"
    if wraps_on_store(dtype):
        expr = low_bits(expr, dtype.bits)
        value = emit(expr, scope)
        return (v.wrap(value, *value_bits(dtype)) if value.is_wide else value).text
    value = emit(expr, scope)
    return (v.cast(value, "int") if value.is_wide else value).text


def low_bits(expr: ir.Expr, bits: int) -> ir.Expr:
    """Drop integer conversions around an expression of which only the low `bits` bits are used."""
    while isinstance(expr, ir.Cast | ir.Bitcast) and expr.type.is_integer and expr.value.type.is_integer:
        if value_bits(expr.type)[0] < bits:
            break
        expr = expr.value
    return expr


# -------------------------------------------------------------------------- constants and loads


def _constant(expr: ir.Const) -> Value:
    if not isinstance(expr.type, Float):
        value = int(expr.value)
        return (
            Value(("false", "true")[value], "bool", Range(value, value))
            if expr.type == UInt(1)
            else v.constant(value)
        )
    return float_literal(float(expr.value), expr.type)


def float_literal(value: float, dtype: DType) -> Value:
    """The shortest decimal text that reads back as the same number."""
    ctype = storage_type(dtype)
    single = dtype.bits <= 32
    if math.isnan(value) or math.isinf(value):
        text = "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
        return Value(f"({ctype}){text}", ctype, precedence=PREFIX)
    number = np.float32(value) if single else np.float64(value)
    size = abs(float(number))
    plain = size == 0 or 1e-4 <= size < 1e9
    text = (
        np.format_float_positional(number, unique=True, trim="0")
        if plain
        else np.format_float_scientific(number, unique=True, trim="0")
    )
    out = Value(
        text + "f" * single, "float" if single else "double", precedence=PREFIX if text[0] == "-" else ATOM
    )
    return out if dtype.bits >= 32 else Value(f"({ctype}){out.at(PREFIX)}", ctype, precedence=PREFIX)


def load(dtype: DType, place: str) -> Value:
    """The value of a variable, carried."""
    ctype = storage_type(dtype)
    precedence = PREFIX if place.startswith("*") else ATOM
    if dtype.is_float:
        return Value(place, ctype, precedence=precedence)
    values = stored_range(dtype)
    if dtype.is_fixed:
        wide = dtype.bits > 64
        name = "flexllm::wide_raw" if wide else "flexllm::raw"
        carried = f"ap_{'' if dtype.signed else 'u'}int<{dtype.bits}>" if wide else carrier(values)
        return Value(f"{name}({place})", carried, values)
    if ctype.startswith("ap_") and dtype.bits <= 64:
        return Value(f"({carrier(values)}){place}", carrier(values), values, PREFIX)
    return Value(place, ctype, values, precedence)


# ------------------------------------------------------------------------------------ operators


def _unary(expr: ir.Unary, value: Value) -> Value:
    if expr.op == "not":
        return Value(f"!{value.at(PREFIX)}", "bool", precedence=PREFIX)
    if isinstance(expr.type, Float):
        return _in_float(
            expr.type, [value], lambda args: Value(f"-{args[0].at(ATOM)}", args[0].ctype, precedence=PREFIX)
        )
    return v.prefix(expr.op, value, *value_bits(expr.type))


def _binary(expr: ir.Binary, left: Value, right: Value) -> Value:
    operand, result = expr.left.type, expr.type
    bits, signed = value_bits(result)
    op = expr.op
    if isinstance(operand, Float):
        return _float_binary(op, left, right, operand)
    match op:
        case "==" | "!=" | "<" | "<=" | ">" | ">=":
            return v.compare(op, left, right)
        case "+" | "-":
            return v.ring(op, left, right, bits, signed)
        case "*":
            product_bits = bits if result.fracs == operand.fracs + expr.right.type.fracs else 4096
            product = v.ring(op, left, right, product_bits, signed)
            return _move_point(product, operand.fracs + expr.right.type.fracs, result)
        case "/" | "//" if operand.is_fixed or expr.right.type.is_fixed:
            return _fixed_divide(expr, left, right)
        case "/" | "//":
            return v.floor_divide(left, right, bits, signed)
        case "%":
            return v.floor_modulo(left, right, bits, signed)
        case "min" | "max":
            return v.extremum(op, left, right)
        case "&" | "|" | "^":
            return v.bitwise(op, left, right, bits, signed)
        case "<<":
            return v.shift_left(left, right, bits, signed)
        case ">>":
            return v.shift_right(left, right)
        case _:
            raise BackendError("FX403", f"operator {op} on {operand} has no C++ form", expr.span)


def _fixed_divide(expr: ir.Binary, left: Value, right: Value) -> Value:
    """Floor of the exact quotient, as a raw value of the result: one operand is scaled first.

    ``//`` floors to a whole number.
    """
    whole = expr.op == "//"
    shift = expr.right.type.fracs - expr.left.type.fracs + (0 if whole else expr.type.fracs)
    bits, signed = value_bits(expr.type)
    unlimited = 4096
    if shift >= 0:
        left = v.ring("<<", left, v.constant(shift), unlimited, True)
    else:
        right = v.ring("<<", right, v.constant(-shift), unlimited, True)
    if whole:
        quotient = v.floor_divide(left, right, unlimited, True)
        return v.shift_left(quotient, v.constant(expr.type.fracs), bits, signed)
    return v.floor_divide(left, right, bits, signed)


def _move_point(value: Value, fracs: int, target: DType) -> Value:
    """A raw value with `fracs` fraction bits as one of `target`: dropped bits are floored, then wrapped."""
    bits, signed = value_bits(target)
    if target.fracs >= fracs:
        return v.shift_left(value, v.constant(target.fracs - fracs), bits, signed)
    return v.wrap(v.shift_right(value, v.constant(fracs - target.fracs)), bits, signed)


def _select(expr: ir.Select, scope: Scope) -> Value:
    condition, then, otherwise = (emit(e, scope) for e in (expr.condition, expr.then, expr.otherwise))
    if isinstance(expr.type, Float):
        return v.ternary(condition, then, otherwise, then.ctype)
    return v.select(condition, then, otherwise)


def _bit_slice(expr: ir.BitSlice, scope: Scope) -> Value:
    """Bits outside of the value are 0: only a slice that may reach there needs the value unsigned first."""
    value, lo = emit(expr.value, scope), emit(expr.lo, scope)
    bits, _ = value_bits(expr.value.type)
    if value.is_wide and expr.type.bits <= 64:
        args = [v.cast(value, f"ap_uint<{bits}>"), v.operand(lo, "int")]
        values = value_range(expr.type)
        return v.call(f"flexllm::bits<{expr.type.bits}>", args, carrier(values), values)
    if lo.range.lo < 0 or lo.range.hi + expr.type.bits > bits:
        value = v.wrap(value, bits, False)
    return v.wrap(v.shift_right(value, lo), expr.type.bits, False)


# --------------------------------------------------------------------------------------- floats


def _in_float(dtype: DType, args: list[Value], compute: Callable[[list[Value]], Value]) -> Value:
    """Apply `compute` to the arguments, through float for the 16-bit formats."""
    ctype = storage_type(dtype)
    if ctype not in NARROW_FLOATS:
        return compute(args)
    wide = [Value(f"(float){a.at(PREFIX)}", "float", precedence=PREFIX) for a in args]
    out = compute(wide)
    return out if out.ctype == "bool" else Value(f"({ctype}){out.at(PREFIX)}", ctype, precedence=PREFIX)


def _float_binary(op: str, left: Value, right: Value, dtype: DType) -> Value:
    def compute(args: list[Value]) -> Value:
        a, b = args
        ctype = a.ctype
        match op:
            case "==" | "!=" | "<" | "<=" | ">" | ">=":
                level = v.PRECEDENCE[op]
                return Value(f"{a.at(level + 1)} {op} {b.at(level + 1)}", "bool", precedence=level)
            case "//":
                return v.call("flexllm::floor", [v.infix("/", a, b, ctype)], ctype)
            case "%":
                return v.call("flexllm::float_mod", [a, b], ctype)
            case "min" | "max":
                return v.call(f"std::{op}<{ctype}>", [a, b], ctype)
            case _:
                return v.infix(op, a, b, ctype)

    return _in_float(dtype, [left, right], compute)


def _math(expr: ir.Math, args: list[Value]) -> Value:
    if not isinstance(expr.type, Float):
        if expr.name != "abs":
            raise BackendError("FX403", f"{expr.name} of {expr.type} has no C++ form", expr.span)
        bits, signed = value_bits(expr.type)
        positive = v.compare(">=", args[0], v.constant(0))
        return (
            args[0]
            if args[0].range.lo >= 0
            else v.select(positive, args[0], v.prefix("-", args[0], bits, signed))
        )
    return _in_float(
        expr.type,
        args,
        lambda wide: v.call(f"flexllm::{expr.name}", wide, wide[0].ctype),  # pyright: ignore
    )


# ---------------------------------------------------------------------------------- conversions


def _cast(expr: ir.Cast, scope: Scope) -> Value:
    source, target = expr.value.type, expr.type
    if source.is_integer and target.is_integer:
        return v.wrap(emit(low_bits(expr.value, value_bits(target)[0]), scope), *value_bits(target))
    value = emit(expr.value, scope)
    if isinstance(source, Float):
        return _from_float(value, target)
    if isinstance(target, Float):
        return _to_float(value, source, target)
    if source.is_fixed and not target.is_fixed:
        return v.wrap(_toward_zero(value, source.fracs), *value_bits(target))
    return _move_point(value, source.fracs, target)


def _from_float(value: Value, target: DType) -> Value:
    if isinstance(target, Float):
        ctype = storage_type(target)
        if value.ctype == ctype:
            return value
        if value.ctype in NARROW_FLOATS and ctype in NARROW_FLOATS:
            value = Value(f"(float){value.at(PREFIX)}", "float", precedence=PREFIX)
        return Value(f"({ctype}){value.at(PREFIX)}", ctype, precedence=PREFIX)
    if value.ctype in NARROW_FLOATS:
        value = Value(f"(float){value.at(PREFIX)}", "float", precedence=PREFIX)
    if target.is_fixed:
        raw = Value(f"flexllm::to_raw({value.text}, {target.fracs})", "int64_t", INT64)
    else:
        raw = v.call("flexllm::to_int", [value], "int64_t", INT64)
    return v.wrap(raw, *value_bits(target))


def _to_float(value: Value, source: DType, target: DType) -> Value:
    """Nearest float: through a type that holds the integer exactly where the target is narrow."""
    ctype = storage_type(target)
    exact = value.range.within(Range(-(1 << 24), 1 << 24))
    via = "double" if target.bits == 64 or (target.bits == 16 and not exact) else "float"
    if value.is_wide:
        raw = Value(f"flexllm::wide_to_float<{via}>({value.text})", via)
    else:
        raw = Value(f"({via}){value.at(PREFIX)}", via, precedence=PREFIX)
    if source.fracs:
        unit = float_literal(
            math.ldexp(1.0, -source.fracs), Float(64, 52) if via == "double" else Float(32, 23)
        )
        raw = v.infix("*", raw, unit, via)
    return raw if ctype == via else Value(f"({ctype}){raw.at(PREFIX)}", ctype, precedence=PREFIX)


def _toward_zero(value: Value, fracs: int) -> Value:
    if not fracs:
        return value
    if value.range.lo >= 0:
        return v.shift_right(value, v.constant(fracs))
    values = Range(-(-value.range.lo >> fracs), max(value.range.hi, 0) >> fracs)
    ctype = carrier(value.range) if value.is_wide else "int64_t"
    return v.call(f"flexllm::fixed_to_int<{ctype}>", [value, v.constant(fracs)], ctype, values)


def _bitcast(expr: ir.Bitcast, scope: Scope) -> Value:
    source, target = expr.value.type, expr.type
    if source.is_integer and target.is_integer:
        return v.wrap(emit(low_bits(expr.value, target.bits), scope), *value_bits(target))
    value = emit(expr.value, scope)
    if isinstance(source, Float):
        if isinstance(target, Float):
            return value
        bits = v.call("flexllm::float_bits", [value], "uint64_t", value_range(UInt(source.bits)))
        return v.wrap(bits, *value_bits(target))
    if isinstance(target, Float):
        raw, ctype = v.wrap(value, target.bits, False), storage_type(target)
        return Value(f"flexllm::float_from_bits<{ctype} >({raw.text})", ctype)
    return v.wrap(value, *value_bits(target))
