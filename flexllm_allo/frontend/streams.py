"""FIFOs in a kernel: which one an expression names, reading one (``get``) or several (``gather``)."""

from __future__ import annotations

import ast
from itertools import product

from ..errors import Span
from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from .context import Channel, Context, StreamsSymbol
from .names import NotConstant


def stream_operand(ctx: Context, node: ast.expr) -> Channel | None:
    """The FIFO (and its indices, for an array of FIFOs) an expression names, or None.

    Raises:
        FrontendError: FX106 wrong number of indices or out of range; FX113 the indices of FIFOs of a
            region must be known at compile time, for each is a channel of its own.
    """
    base, items = _indexed(node)
    symbol = ctx.find(base.id) if isinstance(base, ast.Name) else None
    if isinstance(symbol, StreamsSymbol):
        return _member(ctx, symbol, items, node)
    if not isinstance(symbol, ir.Buffer) or not symbol.is_stream:
        return None
    if len(items) != len(symbol.shape):
        raise ctx.error("FX106", f"{symbol.name} has {len(symbol.shape)} dimensions", node)
    return symbol, tuple(ctx.lower_index(i) for i in items)


def _indexed(node: ast.expr) -> tuple[ast.expr, list[ast.expr]]:
    """What is indexed, and all indices: ``A[i][j]`` and ``A[i, j]`` alike."""
    items: list[ast.expr] = []
    while isinstance(node, ast.Subscript):
        part = node.slice
        items = [*(part.elts if isinstance(part, ast.Tuple) else [part]), *items]
        node = node.value
    return node, items


def _member(ctx: Context, symbol: StreamsSymbol, items: list[ast.expr], node: ast.expr) -> Channel:
    shape = symbol.type.shape
    if len(items) != len(shape):
        message = f"{symbol.name} is an array of streams with {len(shape)} dimension(s), got {len(items)}"
        raise ctx.error("FX106", message, node, "an index for each dimension names one stream")
    indices = tuple(_index(ctx, symbol, item) for item in items)
    for dim, (index, extent) in enumerate(zip(indices, shape, strict=True)):
        _in_range(ctx, symbol, dim, index, extent, items[dim])
    return symbol.member(indices)


def _index(ctx: Context, symbol: StreamsSymbol, node: ast.expr) -> int:
    hint = "use process ids, ConstExpr values and the variables of meta_for"
    try:
        return int(ctx.constant(node).__index__())
    except (NotConstant, AttributeError):
        message = (
            f"the index of stream {symbol.name} must be known at compile time, got `{ast.unparse(node)}`"
        )
        raise ctx.error("FX113", message, node, hint) from None


def _in_range(ctx: Context, symbol: StreamsSymbol, dim: int, index: int, extent: int, node: ast.expr) -> None:
    if index < 0:
        raise ctx.error("FX106", f"Unsupported negative index {index} of stream {symbol.name}", node)
    if index >= extent:
        message = f"Index out of range: stream {symbol.name} has {extent} along dimension {dim}, got {index}"
        raise ctx.error("FX106", message, node)


# ---------------------------------------------------------------------------------------- reading


def lower_get(ctx: Context, node: ast.expr, channel: Channel) -> ir.Expr | list[ir.Buffer]:
    """``fifo.get()``: a scalar, or the array that holds a block."""
    stream, indices = channel
    target = temporary(ctx, f"{stream.name}_token", stream.token, stream, node)
    ctx.emit(ir.Get(target.name, stream.name, indices, ctx.span(node)))
    return [target] if stream.token else ir.Load(target.name, (), target.dtype, ctx.span(node))


def temporary(ctx: Context, stem: str, shape: tuple[int, ...], stream: ir.Buffer, node: ast.AST) -> ir.Buffer:
    """A local array (or scalar) of the stream's element type."""
    buffer = ir.Buffer(ctx.fresh(stem), stream.dtype, shape, span=ctx.span(node))
    ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
    return buffer


def lower_gather(ctx: Context, node: ast.Call) -> list[ir.Buffer]:
    """``df.gather([f0, f1])`` or ``df.gather(fifo[0:4])``: a token of each, in an array."""
    if len(node.args) != 1 or node.keywords:
        raise ctx.error("FX107", "gather takes a list of streams", node)
    sources = channels(ctx, node.args[0])
    first = sources[0][0]
    whole = temporary(ctx, "gathered", (len(sources), *first.token), first, node)
    for position, channel in enumerate(sources):
        at = (ir.Const(position, INDEX, ctx.span(node)),)
        token = lower_get(ctx, node, channel)
        if isinstance(token, list):
            ctx.emit(_copied(token[0], whole, at, ctx.span(node)))
        else:
            ctx.emit(ir.Store(whole.name, at, token, ctx.span(node)))
    return [whole]


def _copied(block: ir.Buffer, whole: ir.Buffer, at: tuple[ir.Expr, ...], span: Span) -> ir.Stmt:
    """Loops that copy an array into the part of another at fixed leading indices."""
    names = [f"_{axis}" for axis in range(len(block.shape))]
    indices: tuple[ir.Expr, ...] = tuple(ir.LoopVar(name, span=span) for name in names)
    value = ir.Load(block.name, indices, block.dtype, span)
    body: ir.Stmt = ir.Store(whole.name, (*at, *indices), value, span)
    for name, extent in zip(reversed(names), reversed(block.shape), strict=True):
        bounds = ir.Const(0, INDEX, span), ir.Const(extent, INDEX, span)
        body = ir.For(name, *bounds, (body,), span=span)
    return body


# ----------------------------------------------------------------------------- several streams


def channels(ctx: Context, node: ast.expr) -> list[Channel]:
    """The streams of a list, or of a slice of an array of streams."""
    found: list[Channel] = []
    if isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            found += channels(ctx, item)
    else:
        found = _slice(ctx, node)
    if not found:
        raise ctx.error("FX107", "there are no streams to choose from", node)
    kinds = {(stream.dtype, stream.token) for stream, _ in found}
    if len(kinds) > 1:
        raise ctx.error("FX104", "the streams carry different types", node)
    return found


def _slice(ctx: Context, node: ast.expr) -> list[Channel]:
    base, items = _indexed(node)
    symbol = ctx.find(base.id) if isinstance(base, ast.Name) else None
    if not isinstance(symbol, StreamsSymbol):
        channel = stream_operand(ctx, node)
        if channel is None:
            raise ctx.error("FX107", f"`{ast.unparse(node)}` is not a stream", node)
        return [channel]
    shape = symbol.type.shape
    if len(items) > len(shape):
        raise ctx.error("FX106", f"stream {symbol.name} has {len(shape)} dimension(s)", node)
    ranges = [range(extent) for extent in shape]
    for dim, item in enumerate(items):
        ranges[dim] = _range(ctx, symbol, item, shape[dim], dim)
    return [symbol.member(indices) for indices in product(*ranges)]


def _range(ctx: Context, symbol: StreamsSymbol, node: ast.expr, extent: int, dim: int) -> range:
    if not isinstance(node, ast.Slice):
        index = _index(ctx, symbol, node)
        _in_range(ctx, symbol, dim, index, extent, node)
        return range(index, index + 1)
    low, high, step = (
        default if part is None else _index(ctx, symbol, part)
        for part, default in ((node.lower, 0), (node.upper, extent), (node.step, 1))
    )
    if not 0 <= low <= high <= extent or step < 1:
        message = f"Index out of range: {low}:{high}:{step} of stream {symbol.name}, which has {extent}"
        raise ctx.error("FX106", message, node)
    return range(low, high, step)


__all__ = ["channels", "lower_gather", "lower_get", "stream_operand", "temporary"]
