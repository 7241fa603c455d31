"""What can be read and assigned below an array: elements, bits of integers, fields of structs."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

from ..errors import DTypeError, DTypeWarning
from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import BOOL, INDEX, DType, Index, Int, Struct, UInt
from .context import Context, LoopSymbol
from .names import NotConstant, evaluate
from .slices import element_of

DEFAULT_SLICE = UInt(32)


@dataclass(frozen=True)
class Bits:
    """A run of bits of an element, read as `type`; `count` is set when the width is known at run time."""

    low: ir.Expr
    type: DType
    count: ir.Expr | None = None


@dataclass(frozen=True)
class Place:
    """An element of an array (or a scalar), or some of its bits."""

    element: ir.Load
    bits: Bits | None = None

    @property
    def type(self) -> DType:
        return self.bits.type if self.bits else self.element.type


def place_of(ctx: Context, node: ast.expr) -> Place | None:
    """The place a name or subscript denotes, or None when it denotes none (a view, an expression).

    Raises:
        FrontendError: FX106 an index, bit or field that does not exist.
    """
    found = element_of(ctx, node)
    if found is None:
        return None
    region, items = found
    element = ir.Load(region.buffer.name, region.at(()), region.dtype, ctx.span(node))
    return Place(element, bits_of(ctx, region.dtype, items, node))


def bits_of(ctx: Context, dtype: DType, items: list[ast.expr], node: ast.expr) -> Bits | None:
    """What subscripts behind an element select in it: ``[k]``, ``[lo:hi]`` or ``["field"]``, nested."""
    found: Bits | None = None
    for item in items:
        inner = _part(ctx, found.type if found else dtype, item, node)
        if found:
            low = ir.Binary("+", found.low, inner.low, INDEX, inner.low.span)
            inner = Bits(_folded(low), inner.type, inner.count)
        found = inner
    return found


def read(ctx: Context, place: Place, node: ast.expr) -> ir.Expr:
    """The value at a place."""
    return read_bits(place.element, place.bits, node, ctx) if place.bits else place.element


def read_bits(value: ir.Expr, bits: Bits, node: ast.expr, ctx: Context) -> ir.Expr:
    """Some bits of a value."""
    span, word = ctx.span(node), UInt(bits.type.bits)
    part: ir.Expr = ir.BitSlice(value, bits.low, word, span)
    if bits.count is not None:
        part = ir.Binary("&", part, _ones(bits, word), word, span)
    return _reinterpret(part, bits.type)


def store(ctx: Context, place: Place, value: ir.Expr, node: ast.AST) -> None:
    """Emit the assignment of `value`, converted to the type of the place."""
    element, span = place.element, ctx.span(node)
    whole = cast(value, place.type, value.span)
    if place.bits is not None:
        whole = _inserted(element, place.bits, whole)
    ctx.emit(ir.Store(element.buffer, element.indices, whole, span))


def _inserted(element: ir.Load, bits: Bits, value: ir.Expr) -> ir.Expr:
    """The element with the bits replaced."""
    word, span = UInt(element.type.bits), value.span
    mask = ir.Binary("<<", _ones(bits, word), bits.low, word, span)
    kept = ir.Binary("&", _reinterpret(element, word), ir.Unary("~", mask, word, span), word, span)
    part = cast(raw_bits(value), word)
    if bits.count is not None:
        part = ir.Binary("&", part, _ones(bits, word), word, span)
    new = ir.Binary("|", kept, ir.Binary("<<", part, bits.low, word, span), word, span)
    return _reinterpret(new, element.type)


def raw_bits(value: ir.Expr) -> ir.Expr:
    """The bits of a value as an unsigned integer."""
    return _reinterpret(value, UInt(value.type.bits))


def _ones(bits: Bits, word: UInt) -> ir.Expr:
    """As many ones as the bits are, in a word."""
    if bits.count is None:
        return ir.Const((1 << bits.type.bits) - 1, word)
    one = ir.Const(1, word)
    return ir.Binary("-", ir.Binary("<<", one, bits.count, word), one, word)


def _reinterpret(value: ir.Expr, t: DType) -> ir.Expr:
    """The same bits as another type of that width."""
    if value.type == t:
        return value
    if isinstance(value.type, Int | UInt) and isinstance(t, Int | UInt):
        return cast(value, t)
    return ir.Bitcast(value, t, value.span)


# -------------------------------------------------------------------------------- one subscript


def _part(ctx: Context, dtype: DType, item: ast.expr, node: ast.expr) -> Bits:
    if isinstance(dtype, Struct):
        return _field(ctx, dtype, item)
    if not dtype.is_integer:
        raise ctx.error("FX106", "Can only access bit (slice) for integers", node)
    width = 64 if isinstance(dtype, Index) else dtype.bits
    if not isinstance(item, ast.Slice):
        low = ctx.lower_index(item)
        _check(ctx, low, 1, width, item)
        return Bits(low, BOOL)
    if item.lower is None or item.upper is None or item.step is not None:
        raise ctx.error("FX106", "a bit slice needs both bounds and no step", node)
    low = ctx.lower_index(item.lower)
    count = _slice_width(ctx, item.lower, item.upper)
    if count is None:
        message, at = "Cannot infer the bitwidth of the slice, use UInt(32) as default", ctx.span(item)
        warnings.warn_explicit(message, DTypeWarning, at.file, at.line)
        difference = ir.Binary("-", ctx.lower_index(item.upper), low, INDEX, ctx.span(node))
        return Bits(low, DEFAULT_SLICE, difference)
    if count <= 0:
        raise ctx.error("FX106", f"a bit slice of {count} bits", node)
    _check(ctx, low, count, width, item.lower)
    return Bits(low, UInt(count))


def _field(ctx: Context, dtype: Struct, item: ast.expr) -> Bits:
    if not isinstance(item, ast.Constant) or not isinstance(item.value, str):
        raise ctx.error("FX106", "Struct field access must use string literal", item)
    try:
        low, field = dtype.field(item.value)
    except DTypeError as error:
        known = ", ".join(name for name, _ in dtype.fields)
        raise ctx.error("FX106", error.message, item, f"its fields are {known}") from None
    return Bits(ir.Const(low, INDEX, ctx.span(item)), field)


def _check(ctx: Context, low: ir.Expr, count: int, width: int, node: ast.expr) -> None:
    if isinstance(low, ir.Const) and not 0 <= low.value <= width - count:
        what = f"bit {low.value}" if count == 1 else f"bits {low.value}:{int(low.value) + count}"
        raise ctx.error("FX106", f"Index out of range: {what} of {width}", node)


def _folded(low: ir.Binary) -> ir.Expr:
    if isinstance(low.left, ir.Const) and isinstance(low.right, ir.Const):
        return ir.Const(low.left.value + low.right.value, INDEX, low.span)
    return low


def _slice_width(ctx: Context, lower: ast.expr, upper: ast.expr) -> int | None:
    """upper - lower, when it is the same whatever the run-time values in it are.

    Probed at sets of values that no sum with small coefficients, remainder or quotient maps to one width.
    """
    difference = ast.copy_location(ast.BinOp(upper, ast.Sub(), lower), upper)
    names = sorted({n.id for n in ast.walk(difference) if isinstance(n, ast.Name)})
    free = [n for n in names if isinstance(ctx.find(n), ir.Buffer | LoopSymbol)]
    known = ctx.values()
    widths: set[int | None] = set()
    for probe in (3, 4, 1009, 10**6):
        numbers = {name: probe ** (i + 1) for i, name in enumerate(free)}
        try:
            widths.add(int(evaluate(difference, {**known, **numbers}, lambda _: False)))
        except (NotConstant, TypeError, ValueError):
            return None
    return widths.pop() if len(widths) == 1 else None
