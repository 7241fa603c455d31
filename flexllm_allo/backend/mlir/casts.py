"""Conversions between the types of the language (docs/numerics.md) in the arith dialect."""

from __future__ import annotations

from ...errors import BackendError, Span
from ...ir.dtypes import DType, Float, Index
from ..containers import is_signed, width
from .types import element
from .writer import Writer


def resize(w: Writer, value: str, source: int, target: int, signed: bool) -> str:
    """An integer of `source` bits as one of `target` bits."""
    if source == target:
        return value
    word = "trunci" if target < source else ("extsi" if signed else "extui")
    return w.op(f"arith.{word} {value} : i{source} to i{target}")


def shift_left(w: Writer, value: str, amount: int, bits: int) -> str:
    """``value << amount``; bits that leave are lost."""
    if amount == 0:
        return value
    if amount >= bits:
        return w.integer(0, bits)
    return w.op(f"arith.shli {value}, {w.integer(amount, bits)} : i{bits}")


def from_index(w: Writer, value: str, dtype: DType) -> str:
    """A value of type index as an i64; others stay."""
    return w.op(f"arith.index_cast {value} : index to i64") if isinstance(dtype, Index) else value


def to_index(w: Writer, value: str, dtype: DType) -> str:
    """An integer of any type as a value of type index."""
    if isinstance(dtype, Index):
        return value
    value = resize(w, value, width(dtype), 64, is_signed(dtype))
    return w.op(f"arith.index_cast {value} : i64 to index")


def cast(w: Writer, value: str, source: DType, target: DType, span: Span) -> str:
    """The value of a `Cast` node."""
    if source == target:
        return value
    if isinstance(source, Float):
        if isinstance(target, Float):
            return _float_to_float(w, value, source, target)
        return _into(w, _float_to_raw(w, value, source, target), target)
    value = from_index(w, value, source)
    if isinstance(target, Float):
        return _raw_to_float(w, value, source, target, span)
    if source.is_fixed and not target.is_fixed:
        value = _truncate_fraction(w, value, source)
        return _into(w, resize(w, value, width(source), width(target), is_signed(source)), target)
    return _into(w, _move_point(w, value, source, target), target)


def _into(w: Writer, value: str, target: DType) -> str:
    return w.op(f"arith.index_cast {value} : i64 to index") if isinstance(target, Index) else value


def _float_to_float(w: Writer, value: str, source: DType, target: DType) -> str:
    a, b = element(source), element(target)
    if target.bits == source.bits:  # float16 and bfloat16
        return w.op(f"arith.truncf {w.op(f'arith.extf {value} : {a} to f32')} : f32 to {b}")
    word = "extf" if target.bits > source.bits else "truncf"
    return w.op(f"arith.{word} {value} : {a} to {b}")


def _float_to_raw(w: Writer, value: str, source: DType, target: DType) -> str:
    """Toward zero for integers, floor for fixed point; what 64 bits do not hold gives 0."""
    kind = source
    if source.bits == 16 or (source.bits == 32 and target.fracs > 60):
        kind = Float(64, 52) if target.fracs > 60 else Float(32, 23)
        value = w.op(f"arith.extf {value} : {element(source)} to {element(kind)}")
    name = element(kind)
    if target.is_fixed:
        if target.fracs:
            value = w.op(f"arith.mulf {value}, {w.constant(2.0**target.fracs, kind)} : {name}")
        value = w.op(f"math.floor {value} : {name}")
    size = w.op(f"math.absf {value} : {name}")
    fits = w.op(f"arith.cmpf olt, {size}, {w.constant(2.0**63, kind)} : {name}")
    safe = w.op(f"arith.select {fits}, {value}, {w.constant(0.0, kind)} : {name}")
    whole = w.op(f"arith.fptosi {safe} : {name} to i64")
    return resize(w, whole, 64, width(target), signed=True)


def _raw_to_float(w: Writer, value: str, source: DType, target: DType, span: Span) -> str:
    bits, word = width(source), "sitofp" if is_signed(source) else "uitofp"
    direct = target.bits >= 32 and (target.bits == 64 or source.fracs <= 100)
    if not direct and bits > 53 and not isinstance(source, Index):  # indices are far smaller than they may be
        raise BackendError(
            "FX403",
            f"MLIR export cannot express the conversion of {source} to {target} with a single rounding",
            span,
            "convert through float64",
        )
    kind = target if direct else Float(64, 52)
    name = element(kind)
    out = w.op(f"arith.{word} {value} : i{bits} to {name}")
    if source.fracs:
        out = w.op(f"arith.mulf {out}, {w.constant(2.0**-source.fracs, kind)} : {name}")
    return out if direct else w.op(f"arith.truncf {out} : {name} to {element(target)}")


def _truncate_fraction(w: Writer, value: str, source: DType) -> str:
    """The whole part of a fixed-point value, toward zero, in the same width."""
    bits = width(source)
    if not source.fracs:
        return value
    wide = max(bits, source.fracs) + 2
    raw = resize(w, value, bits, wide, is_signed(source))
    amount = w.integer(source.fracs, wide)
    if not is_signed(source):
        return resize(w, w.op(f"arith.shrui {raw}, {amount} : i{wide}"), wide, bits, signed=False)
    negative = w.op(f"arith.cmpi slt, {raw}, {w.integer(0, wide)} : i{wide}")
    bias = w.op(
        f"arith.select {negative}, {w.integer((1 << source.fracs) - 1, wide)}, {w.integer(0, wide)} : i{wide}"
    )
    moved = w.op(f"arith.shrsi {w.op(f'arith.addi {raw}, {bias} : i{wide}')}, {amount} : i{wide}")
    return resize(w, moved, wide, bits, signed=True)


def _move_point(w: Writer, value: str, source: DType, target: DType) -> str:
    """Integers and fixed point: shift the binary point, floor, wrap."""
    bits, signed, shift = width(source), is_signed(source), target.fracs - source.fracs
    if shift > 0:
        wide = max(width(target), 1)
        value = resize(w, value, bits, wide, signed)
        return shift_left(w, value, shift, wide)
    if shift < 0:
        amount = min(-shift, bits - 1) if signed else -shift
        if amount >= bits:
            return w.integer(0, width(target))
        value = w.op(f"arith.{'shrsi' if signed else 'shrui'} {value}, {w.integer(amount, bits)} : i{bits}")
    return resize(w, value, bits, width(target), signed)
