"""Operators on integers, fixed point and floats; floor division and shifts that never trap."""

from __future__ import annotations

from ...ir import nodes as ir
from ...ir.dtypes import DType, Float
from ..containers import is_signed, width
from .casts import resize, round_half, wrap, wrap_to
from .frame import Frame, register_bits, register_type
from .prelude import library_symbol

_INTEGER = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor"}
_FLOAT = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
_COMPARE = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def compare(f: Frame, op: str, a: str, b: str, dtype: DType) -> str:
    """A comparison of two values of one type."""
    word = _COMPARE[op]
    if isinstance(dtype, Float):
        order = "une" if op == "!=" else "o" + word
        return f.op(f"fcmp {order} {register_type(dtype)} {a}, {b}")
    if op not in ("==", "!="):
        word = ("s" if is_signed(dtype) else "u") + word
    return f.op(f"icmp {word} {register_type(dtype)} {a}, {b}")


def binary(f: Frame, e: ir.Binary, a: str, b: str, flags: str = "") -> str:
    """`Binary` on the values of its operands; `flags` are those of a plain add, sub or mul."""
    op, dtype, ta, tb = e.op, e.type, e.left.type, e.right.type
    if op in _COMPARE:
        return compare(f, op, a, b, ta)
    kind = register_type(dtype)
    if op in ("min", "max"):
        less = compare(f, "<" if op == "min" else ">", b, a, dtype)
        return f.op(f"select i1 {less}, {kind} {b}, {kind} {a}")
    if isinstance(dtype, Float):
        return round_half(f, _float(f, op, a, b, kind, flags), dtype)
    bits = width(dtype)
    if op in ("<<", ">>"):
        return _shift(f, op, a, b, e)
    if op in ("/", "//"):
        return _divide(f, op, a, b, e)
    if op == "%":
        return floor_divide(f, a, b, bits, is_signed(dtype), isinstance(e.right, ir.Const))[1]
    a = resize(f, a, width(ta), bits, is_signed(ta))
    b = resize(f, b, width(tb), bits, is_signed(tb))
    return wrap_to(f, f.op(f"{_INTEGER[op]} {flags}{kind} {a}, {b}"), dtype)


def _float(f: Frame, op: str, a: str, b: str, kind: str, flags: str) -> str:
    if op in _FLOAT:
        return f.op(f"{_FLOAT[op]} {flags}{kind} {a}, {b}")
    if op == "//":
        quotient = f.op(f"fdiv {kind} {a}, {b}")
        suffix = "f32" if kind == "float" else "f64"
        return f.op(f"call {kind} @llvm.floor.{suffix}({kind} {quotient})")
    rest = f.op(f"call {kind} @{library_symbol('fmod', kind == 'float')}({kind} {a}, {kind} {b})")
    some = f.op(f"fcmp une {kind} {rest}, 0.0")
    low, negative = f.op(f"fcmp olt {kind} {rest}, 0.0"), f.op(f"fcmp olt {kind} {b}, 0.0")
    differ = f.op(f"xor i1 {low}, {negative}")
    wrong = f.op(f"and i1 {some}, {differ}")
    moved = f.op(f"fadd {kind} {rest}, {b}")
    return f.op(f"select i1 {wrong}, {kind} {moved}, {kind} {rest}")


def _divide(f: Frame, op: str, a: str, b: str, e: ir.Binary) -> str:
    dtype, ta, tb = e.type, e.left.type, e.right.type
    constant = isinstance(e.right, ir.Const)
    if ta == tb == dtype and not dtype.fracs:
        return wrap_to(f, floor_divide(f, a, b, width(dtype), is_signed(dtype), constant)[0], dtype)
    # quotient of a * 2**up and b * 2**down, exact in `wide` bits
    scale = tb.fracs - ta.fracs + (dtype.fracs if op == "/" else 0)
    up, down = max(0, scale), max(0, -scale)
    wide = max(width(ta) + up, width(tb) + down) + 1
    a = resize(f, a, width(ta), wide, is_signed(ta))
    b = resize(f, b, width(tb), wide, is_signed(tb))
    a = f.op(f"shl i{register_bits(wide)} {a}, {up}") if up else a
    b = f.op(f"shl i{register_bits(wide)} {b}, {down}") if down else b
    quotient = floor_divide(f, a, b, wide, signed=True, nonzero=False)[0]
    quotient = resize(f, quotient, wide, width(dtype), signed=True)
    if op == "//" and dtype.fracs:
        if dtype.fracs >= width(dtype):
            return "0"
        quotient = f.op(f"shl {register_type(dtype)} {quotient}, {dtype.fracs}")
    return wrap_to(f, quotient, dtype)


def floor_divide(f: Frame, a: str, b: str, bits: int, signed: bool, nonzero: bool) -> tuple[str, str]:
    """Floor quotient (to be wrapped) and the remainder that goes with it; by zero: 0 and `a`.

    `nonzero` tells that the divisor is a constant, which is looked at here.
    """
    if nonzero and b not in ("0", "-1"):
        return _floor(f, a, b, bits, signed)
    kind = f"i{register_bits(bits)}"
    zero = f.op(f"icmp eq {kind} {b}, 0")
    bad = zero
    if signed:  # the least value / -1 would trap
        minus = f.op(f"icmp eq {kind} {b}, -1")
        bad = f.op(f"or i1 {zero}, {minus}")
    safe = f.op(f"select i1 {bad}, {kind} 1, {kind} {b}")
    quotient, rest = _floor(f, a, safe, bits, signed)
    if signed:
        negated = f.op(f"sub {kind} 0, {a}")
        quotient = f.op(f"select i1 {minus}, {kind} {negated}, {kind} {quotient}")  # pyright: ignore
    quotient = f.op(f"select i1 {zero}, {kind} 0, {kind} {quotient}")
    rest = f.op(f"select i1 {zero}, {kind} {a}, {kind} {rest}")
    return quotient, rest


def _floor(f: Frame, a: str, b: str, bits: int, signed: bool) -> tuple[str, str]:
    kind = f"i{register_bits(bits)}"
    if bits > 64:
        quotient, rest = _long_divide(f, a, b, bits, signed)
    else:
        letter = "s" if signed else "u"
        quotient = f.op(f"{letter}div {kind} {a}, {b}")
        rest = f.op(f"{letter}rem {kind} {a}, {b}")
    if signed:
        some = f.op(f"icmp ne {kind} {rest}, 0")
        signs = f.op(f"xor {kind} {rest}, {b}")
        differ = f.op(f"icmp slt {kind} {signs}, 0")
        wrong = f.op(f"and i1 {some}, {differ}")
        less, more = f.op(f"sub {kind} {quotient}, 1"), f.op(f"add {kind} {rest}, {b}")
        quotient = f.op(f"select i1 {wrong}, {kind} {less}, {kind} {quotient}")
        rest = f.op(f"select i1 {wrong}, {kind} {more}, {kind} {rest}")
    return quotient, rest


def _long_divide(f: Frame, a: str, b: str, bits: int, signed: bool) -> tuple[str, str]:
    """Quotient toward zero and its remainder, beyond 64 bits.

    By a function of our own: LLVM would call one of the compiler's library, which may be missing.
    """
    kind, wide = (f"i{register_bits(n)}" for n in (bits, bits + 1))
    f.names.dividers.add(bits + 1)

    def magnitude(x: str) -> tuple[str, str]:
        negative = f.op(f"icmp slt {kind} {x}, 0") if signed else "false"
        minus = f.op(f"sub {kind} 0, {x}")
        size = f.op(f"select i1 {negative}, {kind} {minus}, {kind} {x}")
        return resize(f, size, bits, bits + 1, signed=False), negative

    def signed_again(pair: str, part: int, negative: str) -> str:
        value = f.op(f"extractvalue {{ {wide}, {wide} }} {pair}, {part}")
        value = resize(f, value, bits + 1, bits, signed=False)
        return f.op(f"select i1 {negative}, {kind} {f.op(f'sub {kind} 0, {value}')}, {kind} {value}")

    x, x_negative = magnitude(a)
    y, y_negative = magnitude(b)
    pair = f.op(f"call {{ {wide}, {wide} }} @flex.divide.{bits + 1}({wide} {x}, {wide} {y})")
    differ = f.op(f"xor i1 {x_negative}, {y_negative}")
    return signed_again(pair, 0, differ), signed_again(pair, 1, x_negative)


def _shift(f: Frame, op: str, a: str, amount: str, e: ir.Binary) -> str:
    """By the width or more, or by a negative amount: all bits leave."""
    bits, signed, kind = width(e.type), is_signed(e.type), register_type(e.type)
    word = "shl" if op == "<<" else ("ashr" if signed else "lshr")
    tb = e.right.type
    wide = register_bits(max(bits, width(tb)))
    amount = resize(f, amount, width(tb), wide, is_signed(tb))
    fits = f.op(f"icmp ult i{wide} {amount}, {bits}")
    last = bits - 1 if word == "ashr" else 0
    safe = f.op(f"select i1 {fits}, i{wide} {amount}, i{wide} {last}")
    shifted = f.op(f"{word} {kind} {a}, {resize(f, safe, wide, bits, signed=False)}")
    if word == "ashr":
        return shifted
    return wrap(f, f.op(f"select i1 {fits}, {kind} {shifted}, {kind} 0"), bits, signed)


def bit_slice(f: Frame, value: str, low: str, e: ir.BitSlice) -> str:
    """Bits from `low` (an i64) on; those outside of the value are 0."""
    bits, out = width(e.value.type), width(e.type)
    wide = register_bits(max(bits, 64))
    value = resize(f, wrap(f, value, bits, signed=False), bits, wide, signed=False)
    fits = f.op(f"icmp ult i64 {low}, {bits}")
    safe = f.op(f"select i1 {fits}, i64 {low}, i64 0")
    moved = f.op(f"lshr i{wide} {value}, {resize(f, safe, 64, wide, signed=False)}")
    kept = f.op(f"select i1 {fits}, i{wide} {moved}, i{wide} 0")
    return wrap(f, resize(f, kept, wide, out, signed=False), out, signed=False)


def math_function(f: Frame, name: str, args: list[str], dtype: DType) -> str:
    """A function of floats; float16 and bfloat16 through float."""
    kind = register_type(dtype)
    if not isinstance(dtype, Float):  # abs
        if not is_signed(dtype):
            return args[0]
        minus = f.op(f"sub {kind} 0, {args[0]}")
        negative = f.op(f"icmp slt {kind} {args[0]}, 0")
        return wrap_to(f, f.op(f"select i1 {negative}, {kind} {minus}, {kind} {args[0]}"), dtype)
    single = kind == "float"
    intrinsics = {"sqrt": "sqrt", "abs": "fabs", "floor": "floor", "round": "round"}
    if name in intrinsics:
        symbol = f"llvm.{intrinsics[name]}.{'f32' if single else 'f64'}"
    else:
        symbol = library_symbol("pow" if name == "power" else name, single)
    text = ", ".join(f"{kind} {a}" for a in args)
    return round_half(f, f.op(f"call {kind} @{symbol}({text})"), dtype)


def truth(f: Frame, value: str, dtype: DType) -> str:
    """A value as a condition."""
    if register_type(dtype) == "i1":
        return value
    zero = "0.0" if isinstance(dtype, Float) else "0"
    return compare(f, "!=", value, zero, dtype)
