"""Types, constants and attributes in MLIR's syntax."""

from __future__ import annotations

import math
import struct
from math import prod

from ...ir import nodes as ir
from ...ir.dtypes import RUN_TIME, DType, Float, Index
from ..containers import is_bfloat16
from ..scalars import constant


def element(dtype: DType) -> str:
    """The type of a value: integers and raw fixed-point values are signless."""
    if isinstance(dtype, Float):
        return "bf16" if is_bfloat16(dtype) else f"f{dtype.bits}"
    return "index" if isinstance(dtype, Index) else f"i{dtype.bits}"


def row_major(shape: tuple[int, ...]) -> list[int]:
    """Elements from one position of each dimension to the next."""
    return [prod(shape[d + 1 :]) for d in range(len(shape))]


def memref(dtype: DType, shape: tuple[int, ...], strided: bool = False) -> str:
    """The type of an array; `strided` is the part of a larger one that starts anywhere."""
    dims = "".join("?x" if n == RUN_TIME else f"{n}x" for n in shape)
    layout = f", strided<[{', '.join(map(str, row_major(shape)))}], offset: ?>" if strided else ""
    return f"memref<{dims}{element(dtype)}{layout}>"


def number(value: float, dtype: DType) -> str:
    """A literal that reads back to the same bits."""
    if not isinstance(dtype, Float):
        raw = int(constant(value, dtype))
        return ("true" if raw else "false") if element(dtype) == "i1" else str(raw)
    value = float(constant(value, dtype))
    if math.isfinite(value):
        mantissa, _, exponent = repr(value).partition("e")
        mantissa += "" if "." in mantissa else ".0"
        return f"{mantissa}e{exponent}" if exponent else mantissa
    return f"0x{_bits(value, dtype):0{dtype.bits // 4}X}"


def _bits(value: float, dtype: DType) -> int:
    if is_bfloat16(dtype):
        return struct.unpack("<I", struct.pack("<f", value))[0] >> 16
    code, back = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<Q")}[dtype.bits]
    return struct.unpack(back, struct.pack(code, value))[0]


def dense(values: tuple[int | float, ...], buffer: ir.Buffer) -> str:
    """Constant contents, flat in row-major order, as a ``dense`` attribute."""
    texts = [number(v, buffer.dtype) for v in values]
    if len(set(texts)) == 1:
        return f"dense<{texts[0]}>"
    for extent in reversed(buffer.shape[1:]):
        texts = [f"[{', '.join(texts[i : i + extent])}]" for i in range(0, len(texts), extent)]
    return f"dense<[{', '.join(texts)}]>"


def loop_attributes(loop: ir.For) -> str:
    """What a schedule says of a loop, and the loop's own name, as an attribute dictionary."""
    attrs, items = loop.attrs, [f'loop_name = "{loop.var}"']
    if loop.band:
        items.append(f'op_name = "{loop.band}"')
    if attrs.pipeline is not None:
        items.append(f"pipeline_ii = {attrs.pipeline} : i32")
    if attrs.unroll is not None:
        items.append(f"unroll = {attrs.unroll} : i32")
    items += [
        flag for flag in ("rewind", "parallel", "dataflow", "reduction", "spatial") if getattr(attrs, flag)
    ]
    return f"{{{', '.join(items)}}}"


def buffer_attributes(buffer: ir.Buffer) -> str:
    """The name of an array and how it is partitioned."""
    items = [f'name = "{buffer.name}"']
    if banks := bank_text(buffer):
        items.append(f"partition = {banks}")
    return f"{{{', '.join(items)}}}"


def bank_text(buffer: ir.Buffer) -> str:
    """The partitions of an array as an attribute, or nothing."""
    banks = [
        f'{{kind = "{b.kind}", dim = {b.dim} : i32' + (f", factor = {b.factor} : i32}}" if b.factor else "}")
        for b in buffer.banks
    ]
    return f"[{', '.join(banks)}]" if banks else ""
