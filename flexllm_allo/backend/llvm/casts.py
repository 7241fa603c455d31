"""Conversions between the types of the language, as docs/numerics.md words them."""

from __future__ import annotations

import struct

from ...ir.dtypes import DType, Float
from ..containers import container_bytes, is_bfloat16, is_signed, width
from .frame import Frame, memory_type, register_bits, register_type


def resize(f: Frame, value: str, source: int, target: int, signed: bool) -> str:
    """An integer of `source` bits in a register for `target` bits; still to be wrapped if those are fewer."""
    source, target = register_bits(source), register_bits(target)
    if source == target:
        return value
    if target < source:
        return f.op(f"trunc i{source} {value} to i{target}")
    return f.op(f"{'sext' if signed else 'zext'} i{source} {value} to i{target}")


def wrap(f: Frame, value: str, bits: int, signed: bool) -> str:
    """The low `bits` bits of a register for as many, extended to all of it."""
    kind, spare = f"i{register_bits(bits)}", register_bits(bits) - bits
    if not spare:
        return value
    if signed:
        return f.op(f"ashr {kind} {f.op(f'shl {kind} {value}, {spare}')}, {spare}")
    return f.op(f"and {kind} {value}, {(1 << bits) - 1}")


def wrap_to(f: Frame, value: str, dtype: DType) -> str:
    """`wrap` by the width and signedness of a type."""
    return wrap(f, value, width(dtype), is_signed(dtype))


def round_half(f: Frame, value: str, dtype: DType) -> str:
    """Round a float register to float16 or bfloat16; nothing to do for the wider types."""
    if dtype.bits != 16:
        return value
    if is_bfloat16(dtype):
        return f.op(f"call float @flex.bfloat(float {value})")
    half = f.op(f"fptrunc float {value} to half")
    return f.op(f"fpext half {half} to float")


def cast(f: Frame, value: str, source: DType, target: DType) -> str:
    """The value of a `Cast` node."""
    if source == target:
        return value
    if isinstance(source, Float):
        if isinstance(target, Float):
            return _float_to_float(f, value, source, target)
        return _float_to_raw(f, value, source, target)
    if isinstance(target, Float):
        return _raw_to_float(f, value, source, target)
    if source.is_fixed and not target.is_fixed:
        return _fixed_to_integer(f, value, source, target)
    return _move_point(f, value, source, target)


def _float_to_float(f: Frame, value: str, source: DType, target: DType) -> str:
    if target.bits == 64:
        return value if source.bits == 64 else f.op(f"fpext float {value} to double")
    if source.bits == 64:
        if target.bits == 32:
            return f.op(f"fptrunc double {value} to float")
        value = f.op(f"call float @flex.odd(double {value})")
    return round_half(f, value, target)


def _float_to_raw(f: Frame, value: str, source: DType, target: DType) -> str:
    kind, suffix = ("double", "f64") if source.bits == 64 else ("float", "f32")
    if target.is_fixed:
        if target.fracs > 60 and kind == "float":  # 2**fracs must be a number of the type
            value, kind, suffix = f.op(f"fpext float {value} to double"), "double", "f64"
        if target.fracs:
            value = f.op(f"fmul {kind} {value}, {_power_of_two(target.fracs)}")
        value = f.op(f"call {kind} @llvm.floor.{suffix}({kind} {value})")
    size = f.op(f"call {kind} @llvm.fabs.{suffix}({kind} {value})")
    fits = f.op(f"fcmp olt {kind} {size}, {_power_of_two(63)}")
    safe = f.op(f"select i1 {fits}, {kind} {value}, {kind} 0.0")
    whole = f.op(f"fptosi {kind} {safe} to i64")
    return wrap_to(f, resize(f, whole, 64, width(target), signed=True), target)


def _power_of_two(exponent: int) -> str:
    return "0x" + struct.pack(">d", 2.0**exponent).hex().upper()


def _raw_to_float(f: Frame, value: str, source: DType, target: DType) -> str:
    bits, fracs = width(source), source.fracs
    convert = f"{'sitofp' if is_signed(source) else 'uitofp'} {register_type(source)}"
    kind = register_type(target)
    if bits <= 64 and target.bits >= 32 and not fracs:
        return f.op(f"{convert} {value} to {kind}")
    if target.bits == 64 and bits <= 64:
        whole = f.op(f"{convert} {value} to double")
        return f.op(f"fmul double {whole}, {_power_of_two(-fracs)}")
    if bits <= 24 and fracs <= 100:  # exact in a float, scaling included
        whole = f.op(f"{convert} {value} to float")
        scaled = f.op(f"fmul float {whole}, {_power_of_two(-fracs)}") if fracs else whole
        return round_half(f, scaled, target)
    if bits <= 53:
        whole = f.op(f"{convert} {value} to double")
        exact = f.op(f"fmul double {whole}, {_power_of_two(-fracs)}")
    else:
        exact = _wide_to_double(f, value, source, target)
    if target.bits == 64:
        return exact
    if target.bits == 32:
        return f.op(f"fptrunc double {exact} to float")
    return round_half(f, f.op(f"call float @flex.odd(double {exact})"), target)


def _wide_to_double(f: Frame, value: str, source: DType, target: DType) -> str:
    """Scaled value of more than 53 bits: nearest if the target is float64, else rounded to odd."""
    wide = register_bits(max(65, width(source) + 1))
    kind = f"i{wide}"
    x = resize(f, value, width(source), wide, is_signed(source))
    negative = f.op(f"icmp slt {kind} {x}, 0")
    minus = f.op(f"sub {kind} 0, {x}")
    size = f.op(f"select i1 {negative}, {kind} {minus}, {kind} {x}")
    zeros = f.op(f"call {kind} @llvm.ctlz.{kind}({kind} {size}, i1 false)")
    zero = f.op(f"icmp eq {kind} {size}, 0")
    amount = f.op(f"select i1 {zero}, {kind} 0, {kind} {zeros}")
    left = f.op(f"shl {kind} {size}, {amount}")
    high = f.op(f"lshr {kind} {left}, {wide - 64}")
    top = f.op(f"trunc {kind} {high} to i64")
    rest = f.op(f"shl {kind} {left}, 64")
    some = f.op(f"icmp ne {kind} {rest}, 0")
    sticky = f.op(f"zext i1 {some} to i64")
    mantissa = f.op(f"or i64 {top}, {sticky}")
    if target.bits == 64:
        whole = f.op(f"uitofp i64 {mantissa} to double")
    else:
        whole = f.op(f"call double @flex.oddint(i64 {mantissa})")
    count = resize(f, amount, wide, 64, signed=False)
    exponent = f.op(f"sub i64 {wide - 64 - source.fracs + 1023}, {count}")
    large = f.op(f"icmp sgt i64 {exponent}, 2046")  # then the product is infinite anyway
    capped = f.op(f"select i1 {large}, i64 2046, i64 {exponent}")
    bits = f.op(f"shl i64 {capped}, 52")
    scale = f.op(f"bitcast i64 {bits} to double")
    product = f.op(f"fmul double {whole}, {scale}")
    flipped = f.op(f"fneg double {product}")
    signed = f.op(f"select i1 {negative}, double {flipped}, double {product}")
    return f.op(f"select i1 {zero}, double 0.0, double {signed}")


def _fixed_to_integer(f: Frame, value: str, source: DType, target: DType) -> str:
    """Toward zero."""
    bits, fracs, signed = width(source), source.fracs, is_signed(source)
    wide = register_bits(max(bits, fracs) + 2)
    x = resize(f, value, bits, wide, signed)
    if fracs:
        if signed:
            negative = f.op(f"icmp slt i{wide} {x}, 0")
            bias = f.op(f"select i1 {negative}, i{wide} {(1 << fracs) - 1}, i{wide} 0")
            x = f.op(f"add i{wide} {x}, {bias}")
        x = f.op(f"ashr i{wide} {x}, {fracs}")
    return wrap_to(f, resize(f, x, wide, width(target), signed=True), target)


def _move_point(f: Frame, value: str, source: DType, target: DType) -> str:
    """Integer or fixed point to integer or fixed point: shift the binary point, floor, wrap."""
    left, bits, signed = target.fracs - source.fracs, width(source), is_signed(source)
    if left < 0:
        if -left >= bits:
            value = f.op(f"ashr {register_type(source)} {value}, {bits - 1}") if signed else "0"
        else:
            value = f.op(f"{'ashr' if signed else 'lshr'} {register_type(source)} {value}, {-left}")
    value = resize(f, value, bits, width(target), signed)
    if left > 0:
        if left >= width(target):
            return "0"
        value = f.op(f"shl {register_type(target)} {value}, {left}")
    return wrap_to(f, value, target)


def load(f: Frame, pointer: str, dtype: DType, align: int) -> str:
    """The value of the element at `pointer`, whatever the spare bits of its container are."""
    if container_bytes(dtype) > 8:
        return wrap_to(f, _load_parts(f, pointer, dtype), dtype)
    memory = memory_type(dtype)
    value = f.op(f"load {memory}, ptr {pointer}, align {align}")
    if is_bfloat16(dtype):
        wide = f.op(f"zext i16 {value} to i32")
        bits = f.op(f"shl i32 {wide}, 16")
        return f.op(f"bitcast i32 {bits} to float")
    if memory == "half":
        return f.op(f"fpext half {value} to float")
    if isinstance(dtype, Float):
        return value
    return wrap_to(f, resize(f, value, int(memory[1:]), width(dtype), signed=False), dtype)


def _parts(dtype: DType) -> list[tuple[int, int]]:
    """Offset and size in bytes of the accesses that make up an element of more than 8 bytes."""
    size, at = container_bytes(dtype), 0
    parts: list[tuple[int, int]] = []
    while at < size:
        part = min(8, 1 << ((size - at).bit_length() - 1))
        parts.append((at, part))
        at += part
    return parts


def _load_parts(f: Frame, pointer: str, dtype: DType) -> str:
    kind, value = register_type(dtype), "0"
    for at, size in _parts(dtype):
        place = f.op(f"getelementptr inbounds i8, ptr {pointer}, i64 {at}")
        part = f.op(f"load i{8 * size}, ptr {place}, align 1")
        part = f.op(f"zext i{8 * size} {part} to {kind}")
        value = f.op(f"or {kind} {value}, {f.op(f'shl {kind} {part}, {8 * at}')}")
    return value


def _store_parts(f: Frame, value: str, pointer: str, dtype: DType) -> None:
    kind = register_type(dtype)
    for at, size in _parts(dtype):
        place = f.op(f"getelementptr inbounds i8, ptr {pointer}, i64 {at}")
        part = f.op(f"trunc {kind} {f.op(f'lshr {kind} {value}, {8 * at}')} to i{8 * size}")
        f.do(f"store i{8 * size} {part}, ptr {place}, align 1")


def store(f: Frame, value: str, pointer: str, dtype: DType, align: int) -> None:
    """Write an element; spare bits of its container become the sign or zero extension."""
    if container_bytes(dtype) > 8:
        return _store_parts(f, value, pointer, dtype)
    memory = memory_type(dtype)
    if is_bfloat16(dtype):
        bits = f.op(f"bitcast float {value} to i32")
        high = f.op(f"lshr i32 {bits}, 16")
        value = f.op(f"trunc i32 {high} to i16")
    elif memory == "half":
        value = f.op(f"fptrunc float {value} to half")
    elif not isinstance(dtype, Float):
        value = resize(f, value, width(dtype), int(memory[1:]), is_signed(dtype))
    f.do(f"store {memory} {value}, ptr {pointer}, align {align}")


def bitcast(f: Frame, value: str, source: DType, target: DType) -> str:
    """The same bits as another type."""
    return _from_bits(f, _to_bits(f, value, source), target)


def _to_bits(f: Frame, value: str, dtype: DType) -> str:
    if not isinstance(dtype, Float):
        return value
    if is_bfloat16(dtype):
        bits = f.op(f"bitcast float {value} to i32")
        return f.op(f"trunc i32 {f.op(f'lshr i32 {bits}, 16')} to i16")
    if dtype.bits == 16:
        half = f.op(f"fptrunc float {value} to half")
        return f.op(f"bitcast half {half} to i16")
    return f.op(f"bitcast {register_type(dtype)} {value} to i{dtype.bits}")


def _from_bits(f: Frame, bits: str, dtype: DType) -> str:
    if not isinstance(dtype, Float):
        return wrap_to(f, bits, dtype)
    if is_bfloat16(dtype):
        wide = f.op(f"zext i16 {bits} to i32")
        return f.op(f"bitcast i32 {f.op(f'shl i32 {wide}, 16')} to float")
    if dtype.bits == 16:
        half = f.op(f"bitcast i16 {bits} to half")
        return f.op(f"fpext half {half} to float")
    return f.op(f"bitcast i{dtype.bits} {bits} to {register_type(dtype)}")
