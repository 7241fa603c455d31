"""``x.reverse()`` and ``x.bitcast()`` on scalars."""

from __future__ import annotations

import ast

from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import INDEX, DType, Float, Int, UInt
from .context import Context
from .places import raw_bits

BIT_METHODS = ("reverse", "bitcast")

_FLOATS = {16: Float(16, 10), 32: Float(32, 23), 64: Float(64, 52)}


def lower_bit_method(ctx: Context, name: str, value: ir.Expr, node: ast.Call) -> ir.Expr:
    """The method's value.

    Raises:
        FrontendError: FX107 it is given arguments; FX109 it is not defined for the type.
    """
    if node.args or node.keywords:
        raise ctx.error("FX107", f".{name}() takes no arguments", node)
    return _reverse(ctx, value, node) if name == "reverse" else _bitcast(ctx, value, node)


def _bitcast(ctx: Context, value: ir.Expr, node: ast.Call) -> ir.Expr:
    """An integer of a float's width becomes that float; everything else its bits."""
    target: DType = UInt(value.type.bits)
    if isinstance(value.type, Int | UInt):
        if value.type.bits not in _FLOATS:
            hint = "integers of 16, 32 or 64 bits become floats"
            raise ctx.error("FX109", f"bitcast is not defined for {value.type}", node, hint)
        target = _FLOATS[value.type.bits]
    elif not (value.type.is_float or value.type.is_fixed):
        raise ctx.error("FX109", f"bitcast is not defined for {value.type}", node)
    return ir.Bitcast(value, target, ctx.span(node))


def _reverse(ctx: Context, value: ir.Expr, node: ast.Call) -> ir.Expr:
    """The bits in the opposite order: halves swapped, then halves of the halves, and so on."""
    if not isinstance(value.type, Int | UInt):
        raise ctx.error("FX109", f"reverse is not defined for {value.type}; it reverses integers", node)
    bits, span = value.type.bits, ctx.span(node)
    size = 1 << (bits - 1).bit_length()
    word = UInt(size)
    part, step = cast(raw_bits(value), word), size // 2
    while step:
        # each step uses its operand twice, so it is held
        held = ctx.temporary("reversed", word, node)
        ctx.emit(ir.Store(held.name, (), part, span))
        old = ir.Load(held.name, (), word, span)
        low = ir.Const(sum(((1 << step) - 1) << at for at in range(0, size, 2 * step)), word, span)
        by = ir.Const(step, INDEX, span)
        down = ir.Binary("&", ir.Binary(">>", old, by, word, span), low, word, span)
        up = ir.Binary("<<", ir.Binary("&", old, low, word, span), by, word, span)
        part, step = ir.Binary("|", down, up, word, span), step // 2
    if size > bits:
        part = ir.Binary(">>", part, ir.Const(size - bits, INDEX, span), word, span)
    return cast(cast(part, UInt(bits)), value.type)
