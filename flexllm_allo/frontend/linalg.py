"""Products, convolutions and pooling as loops. Sums run in index order in the type of the first operand."""

from __future__ import annotations

from collections.abc import Callable

from ..ir import nodes as ir
from ..ir.convert import constant_as
from .axes import Indices, Region, Shape
from .broadcast import common_shape, stretched
from .operations import Request
from .tensors import Array, Tensor, loops, store

Term = Callable[[Indices, Indices], ir.Expr]
"""What a reduction adds up at an index of the result and an index of the reduction."""


def _accumulate(call: Request, region: Region, band: str, over: Shape, op: str, term: Term) -> None:
    """``region[i] = region[i] op term(i, r)`` for every i and, innermost, every r in `over`."""
    with loops(call.ctx, (*region.shape, *over), call.node, band) as indices:
        own, rest = indices[: len(region.shape)], indices[len(region.shape) :]
        so_far = ir.Load(region.buffer.name, region.at(own), region.dtype, call.ctx.span(call.node))
        if op == "max":
            added: ir.Expr = ir.Binary("max", so_far, term(own, rest), region.dtype, so_far.span)
        else:
            added = call.ctx.lowering.binary(call.ctx, op, so_far, term(own, rest), call.node)
        store(call.ctx, region, own, added, call.node)


def _reset(call: Request, region: Region, band: str) -> None:
    zero = constant_as(0, region.dtype, call.ctx.span(call.node))
    with loops(call.ctx, region.shape, call.node, f"{band}init_zero") as indices:
        store(call.ctx, region, indices, zero, call.node)


def _sum_of_products(call: Request, operands: list[Tensor], shape: Shape, over: Shape, term: Term) -> Array:
    def write(region: Region, band: str) -> None:
        _reset(call, region, band)
        _accumulate(call, region, band, over, "+", term)

    return call.pending(operands, shape, write)


def _product(call: Request, left: ir.Expr, right: ir.Expr) -> ir.Expr:
    return call.ctx.lowering.binary(call.ctx, "*", left, right, call.node)


def matmul(call: Request) -> Array:
    """[.., M, K] x [.., K, N] -> [.., M, N]; leading dimensions broadcast."""
    left, right = operands = call.operands()
    batch = common_shape(left.shape[:-2], right.shape[:-2])
    if min(len(left.shape), len(right.shape)) < 2 or batch is None or left.shape[-1] != right.shape[-2]:
        raise call.mismatch(operands, "[.., M, K] x [.., K, N]")
    return _matmul(call, left, right, batch)


def bmm(call: Request) -> Array:
    """[B, M, K] x [B, K, N] -> [B, M, N]."""
    left, right = operands = call.operands()
    ranks = len(left.shape) == len(right.shape) == 3
    if not ranks or left.shape[0] != right.shape[0] or left.shape[2] != right.shape[1]:
        raise call.mismatch(operands, "[B, M, K] x [B, K, N]")
    return _matmul(call, left, right, left.shape[:1])


def _matmul(call: Request, left: Tensor, right: Tensor, batch: Shape) -> Array:
    def term(i: Indices, r: Indices) -> ir.Expr:
        a = stretched(i[:-2], left.shape[:-2])
        b = stretched(i[:-2], right.shape[:-2])
        return _product(call, left.at((*a, i[-2], *r)), right.at((*b, *r, i[-1])))

    shape = (*batch, left.shape[-2], right.shape[-1])
    return _sum_of_products(call, [left, right], shape, left.shape[-1:], term)


def linear(call: Request) -> Array:
    """[.., K] x [N, K] (+ [N]) -> [.., N]: X times the transpose of W, plus the bias."""
    x, w, *bias = operands = call.operands()
    good = len(w.shape) == 2 and x.shape[-1] == w.shape[1]
    if not good or any(b.shape != w.shape[:1] for b in bias):
        raise call.mismatch(operands, "[.., K] x [N, K] + [N]")

    def term(i: Indices, r: Indices) -> ir.Expr:
        return _product(call, x.at((*i[:-1], *r)), w.at((i[-1], *r)))

    def write(region: Region, band: str) -> None:
        _reset(call, region, band)
        _accumulate(call, region, band, x.shape[-1:], "+", term)
        if bias:
            _accumulate(call, region, f"{band}bias", (), "+", lambda i, _: bias[0].at(i[-1:]))

    return call.pending(operands, (*x.shape[:-1], w.shape[0]), write)


def conv2d(call: Request) -> Array:
    """[N, C, H, W] * [F, C, Kh, Kw] -> [N, F, H - Kh + 1, W - Kw + 1], stride 1, no padding."""
    image, kernel = operands = call.operands()
    if not len(image.shape) == len(kernel.shape) == 4 or image.shape[1] != kernel.shape[1]:
        raise call.mismatch(operands, "[N, C, H, W] * [F, C, Kh, Kw]")
    shape = (image.shape[0], kernel.shape[0], *_windows(call, operands))

    def term(i: Indices, r: Indices) -> ir.Expr:
        y, x = _moved(i[2], r[1]), _moved(i[3], r[2])
        return _product(call, image.at((i[0], r[0], y, x)), kernel.at((i[1], *r)))

    return _sum_of_products(call, operands, shape, kernel.shape[1:], term)


def _windows(call: Request, operands: list[Tensor]) -> Shape:
    """How many positions a window, the last two dimensions of the second operand, has on the first."""
    sizes = tuple(h - k + 1 for h, k in zip(operands[0].shape[-2:], operands[1].shape[-2:], strict=True))
    if min(sizes) < 1:
        raise call.mismatch(operands, "the window is larger than the image")
    return sizes


def _moved(index: ir.Expr, offset: ir.Expr) -> ir.Expr:
    return ir.Binary("+", index, offset, index.type, index.span)


def _pool(op: str) -> Callable[[Request], Array]:
    def lower(call: Request) -> Array:
        """[N, C, H, W] under a window of the filter's shape -> [N, C, H - Kh + 1, W - Kw + 1]."""
        image, window = operands = call.operands()
        if len(image.shape) != 4 or len(window.shape) != 2:
            raise call.mismatch(operands, "[N, C, H, W] and a window [Kh, Kw]")
        shape = (*image.shape[:2], *_windows(call, operands))

        def term(i: Indices, r: Indices) -> ir.Expr:
            return image.at((*i[:2], _moved(i[2], r[0]), _moved(i[3], r[1])))

        def write(region: Region, band: str) -> None:
            if op == "+":
                _reset(call, region, band)
            else:  # the first element of each window, so that no type needs a least value
                with loops(call.ctx, shape, call.node, f"{band}init") as i:
                    store(call.ctx, region, i, image.at(i), call.node)
            _accumulate(call, region, band, window.shape, op, term)

        return call.pending([image], shape, write)

    return lower


maxpool, sumpool = _pool("max"), _pool("+")
