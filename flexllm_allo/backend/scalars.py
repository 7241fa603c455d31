"""Arithmetic of the language on single values, as docs/numerics.md words it.

A value is a Python int (raw for fixed point), an `np.float32` / `np.float64`, or for float16 and
bfloat16 an `np.float32` that is exactly a value of that type.  The interpreter is built on this;
it favours plainness over speed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..ir.dtypes import DType, Float, UInt
from .containers import is_bfloat16, width, wrap

Value = int | np.float32 | np.float64
Float1 = np.float32 | np.float64

LIMIT = 2.0**63

# The C library's own functions, so that every backend computes the same bits.
C_FUNCTIONS = {
    "exp": 1, "log": 1, "log2": 1, "log10": 1, "sin": 1, "cos": 1, "tan": 1, "tanh": 1, "pow": 2, "fmod": 2,
}  # fmt: skip


def _load(name: str, single: bool, arity: int) -> Callable[..., float]:
    function = getattr(_LIBM, name + "f" * single)
    kind = ctypes.c_float if single else ctypes.c_double
    function.restype = kind
    function.argtypes = [kind] * arity
    return function


_LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
LIBM = {(name, single): _load(name, single, n) for name, n in C_FUNCTIONS.items() for single in (True, False)}


def libm_address(name: str, single: bool) -> int:
    """The address of a C function, for backends that call it from compiled code."""
    return cast(int, ctypes.cast(cast(Any, LIBM[name, single]), ctypes.c_void_p).value)


# ------------------------------------------------------------------------------------ conversions


def convert(value: Value, source: DType, target: DType) -> Value:
    """The `Cast` of the language."""
    if isinstance(source, Float):
        number = cast(Float1, value)
        if isinstance(target, Float):
            return _round_float(number, target)
        return _float_to_raw(number, target)
    raw = int(value)
    if isinstance(target, Float):
        return from_ratio(raw, source.fracs, target)
    if source.is_fixed and not target.is_fixed:
        sign = -1 if raw < 0 else 1
        return wrap(sign * (abs(raw) >> source.fracs), target)
    return wrap(_shift(raw, target.fracs - source.fracs), target)


def _float_to_raw(value: Float1, target: DType) -> int:
    number = float(value)
    if target.is_fixed and math.isfinite(number):
        # a product beyond double's range is beyond 2^63 too
        number = math.floor(math.ldexp(number, target.fracs)) if abs(number) < LIMIT else LIMIT
    if not abs(number) < LIMIT:  # NaN as well
        return 0
    return wrap(int(number), target)


def _round_float(value: Float1, target: DType) -> Float1:
    if target.bits == 64:
        return np.float64(value)
    if target.bits == 32:
        return np.float32(value)
    if not is_bfloat16(target):
        return np.float32(np.float16(value))
    if not np.isfinite(value) or value == 0:
        return np.float32(value)
    numerator, denominator = float(value).as_integer_ratio()
    return from_ratio(numerator, denominator.bit_length() - 1, target)


def from_ratio(raw: int, fracs: int, target: DType) -> Float1:
    """The float of type `target` nearest to ``raw * 2**-fracs``, ties to even."""
    kind = np.float64 if target.bits == 64 else np.float32
    if raw == 0:
        return kind(0)
    magnitude = abs(raw)
    smallest = {10: -14, 7: -126, 23: -126, 52: -1022}[target.fracs]
    exponent = max(magnitude.bit_length() - 1 - fracs, smallest) - target.fracs
    shift = fracs + exponent
    mantissa = _shift(magnitude, -shift)
    if shift > 0:
        rest, half = magnitude & ((1 << shift) - 1), 1 << (shift - 1)
        mantissa += rest > half or (rest == half and mantissa & 1)
    bound = 16 if target.fracs == 10 else -smallest + 2
    if mantissa.bit_length() + exponent > bound:
        return kind(math.copysign(math.inf, raw))
    return kind(math.copysign(math.ldexp(float(mantissa), exponent), raw))


def _shift(raw: int, left: int) -> int:
    return raw << left if left >= 0 else raw >> -left


def bitcast(value: Value, source: DType, target: DType) -> Value:
    """The same bits read as another type."""
    bits = _float_bits(cast(Float1, value), source) if isinstance(source, Float) else int(value)
    return float_from_bits(bits, target) if isinstance(target, Float) else wrap(bits, target)


def _float_bits(value: Float1, dtype: DType) -> int:
    if is_bfloat16(dtype):
        return int(np.float32(value).view(np.uint32)) >> 16
    if dtype.bits == 16:
        return int(np.float16(value).view(np.uint16))
    return int(value.view(np.uint32 if dtype.bits == 32 else np.uint64))


def float_from_bits(bits: int, dtype: DType) -> Float1:
    """The float with a bit pattern."""
    bits &= (1 << dtype.bits) - 1
    if is_bfloat16(dtype):
        return np.uint32(bits << 16).view(np.float32)
    if dtype.bits == 16:
        return np.float32(np.uint16(bits).view(np.float16))
    return np.uint32(bits).view(np.float32) if dtype.bits == 32 else np.uint64(bits).view(np.float64)


def constant(value: float, dtype: DType) -> Value:
    """The run-time value of a literal (`ir.Const`) or initial value."""
    if isinstance(dtype, Float):
        return _round_float(np.float64(value), dtype)
    return wrap(int(value), dtype)


# -------------------------------------------------------------------------------------- operators


def unary(op: str, value: Value, dtype: DType) -> Value:
    """`Unary` on a value of type `dtype`."""
    if op == "not":
        return int(not value)
    if isinstance(dtype, Float):
        return cast(Float1, -value)
    raw = int(value)
    return wrap(-raw if op == "-" else ~raw, dtype)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def binary(op: str, a: Value, b: Value, ta: DType, tb: DType, dtype: DType) -> Value:
    """`Binary` on values of types `ta` and `tb` with result type `dtype`.

    Raises:
        ZeroDivisionError: an integer or fixed-point division by zero.
    """
    if op in _COMPARE:
        return int(_COMPARE[op](a, b))
    if op == "min":
        return b if b < a else a
    if op == "max":
        return b if b > a else a
    if isinstance(dtype, Float):
        return _round_float(_float_binary(op, cast(Float1, a), cast(Float1, b)), dtype)
    return wrap(_integer_binary(op, int(a), int(b), ta, tb, dtype), dtype)


def _float_binary(op: str, a: Float1, b: Float1) -> Float1:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "//":
            return np.floor(a / b)
        case "%":
            rest = type(a)(LIBM["fmod", a.itemsize == 4](float(a), float(b)))
            return rest + b if rest != 0 and (rest < 0) != (b < 0) else rest
        case _:
            raise ValueError(op)


def _integer_binary(op: str, a: int, b: int, ta: DType, tb: DType, dtype: DType) -> int:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "&":
            return a & b
        case "|":
            return a | b
        case "^":
            return a ^ b
        case "%":
            return a % b
        case "<<":
            return a << b if 0 <= b < width(dtype) else 0
        case ">>":
            return a >> (b if 0 <= b < width(dtype) else width(dtype))
        case "//":
            return (_shift(a, max(0, tb.fracs - ta.fracs)) // _shift(b, max(0, ta.fracs - tb.fracs))) << (
                dtype.fracs
            )
        case "/":
            scale = dtype.fracs - ta.fracs + tb.fracs
            return _shift(a, max(0, scale)) // _shift(b, max(0, -scale))
        case _:
            raise ValueError(op)


def bit_slice(value: int, low: int, source: DType, target: UInt) -> int:
    """`target.bits` bits of `value` from bit `low` on; bits outside of the value are 0."""
    bits = width(source)
    return wrap((value & ((1 << bits) - 1)) >> low, target) if 0 <= low < bits else 0


def math_function(name: str, args: tuple[Value, ...], dtype: DType) -> Value:
    """`Math`: the C library's function; float16 and bfloat16 through float32."""
    if not isinstance(dtype, Float):
        if name != "abs":
            raise ValueError(name)
        return wrap(abs(int(args[0])), dtype)
    x = cast(Float1, args[0])
    match name:
        case "sqrt":
            out = np.sqrt(x)
        case "abs":
            out = np.abs(x)
        case "floor":
            out = np.floor(x)
        case "round":
            whole = np.trunc(x)
            away = np.abs(x - whole) >= 0.5
            out = np.copysign(whole + np.copysign(type(x)(1), x), x) if away else whole
        case _:
            single = dtype.bits != 64
            function = LIBM["pow" if name == "power" else name, single]
            out = (np.float32 if single else np.float64)(function(*(float(a) for a in args)))
    return _round_float(cast(Float1, out), dtype)


def is_true(value: Value) -> bool:
    """The truth of a condition."""
    return bool(value != 0)
