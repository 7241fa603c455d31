"""Softmax and layer normalisation: a few passes over the last axis."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir import nodes as ir
from ..ir.convert import cast, constant_as
from ..ir.dtypes import INDEX, DType
from .axes import Region
from .element_rules import require_float
from .operations import Request
from .tensors import Array, loops, store


@dataclass(frozen=True)
class _Scalar:
    """A variable of a row, and arithmetic in its type."""

    call: Request
    buffer: ir.Buffer

    @property
    def value(self) -> ir.Expr:
        return ir.Load(self.buffer.name, (), self.buffer.dtype, self.call.ctx.span(self.call.node))

    def set(self, value: ir.Expr) -> None:
        converted = cast(value, self.buffer.dtype)
        self.call.ctx.emit(ir.Store(self.buffer.name, (), converted, self.call.ctx.span(self.call.node)))

    def add(self, value: ir.Expr) -> None:
        self.set(_binary(self.call, "+", self.value, value))


def _scalar(call: Request, band: str, what: str, t: DType) -> _Scalar:
    return _Scalar(call, call.ctx.temporary(f"{band}_{what}", t, call.node))


def _binary(call: Request, op: str, left: ir.Expr, right: ir.Expr) -> ir.Expr:
    return call.ctx.lowering.binary(call.ctx, op, left, right, call.node)


def _math(call: Request, name: str, value: ir.Expr) -> ir.Expr:
    return ir.Math(name, (value,), value.type, call.ctx.span(call.node))


def softmax(call: Request) -> Array:
    """exp(x - max) / sum along the last axis."""
    (x,) = call.operands()
    require_float(call.ctx, "softmax", x.dtype, call.node)
    ctx, node, row, size = call.ctx, call.node, x.shape[:-1], x.shape[-1:]

    def write(region: Region, band: str) -> None:
        def load(at: tuple[ir.Expr, ...]) -> ir.Expr:
            return ir.Load(region.buffer.name, region.at(at), x.dtype, ctx.span(node))

        with loops(ctx, row, node, band) as i:
            largest, total = (_scalar(call, band, what, x.dtype) for what in ("max", "sum"))
            largest.set(x.at((*i, ir.Const(0, INDEX))))
            with loops(ctx, size, node, f"{band}max", len(row)) as j:
                value = x.at((*i, *j))
                largest.set(ir.Binary("max", largest.value, value, x.dtype, ctx.span(node)))
            total.set(constant_as(0, x.dtype))
            with loops(ctx, size, node, f"{band}sum", len(row)) as j:
                power = _math(call, "exp", _binary(call, "-", x.at((*i, *j)), largest.value))
                store(ctx, region, (*i, *j), power, node)
                total.add(load((*i, *j)))
            with loops(ctx, size, node, band, len(row)) as j:
                share = _binary(call, "/", load((*i, *j)), total.value)
                store(ctx, region, (*i, *j), share, node)

    return call.pending([x], x.shape, write)


def layernorm(call: Request) -> Array:
    """(x - mean) / sqrt(variance + eps) * gamma + beta along the last axis, gamma and beta of its size."""
    x, gamma, beta = operands = call.operands()
    require_float(call.ctx, "layernorm", x.dtype, call.node)
    if not gamma.shape == beta.shape == x.shape[-1:]:
        raise call.mismatch(operands, "gamma and beta have the size of the last axis")
    ctx, node, t, row, size = call.ctx, call.node, x.dtype, x.shape[:-1], x.shape[-1:]
    count, eps = constant_as(float(size[0]), t), constant_as(float(call.settings["eps"]), t)

    def write(region: Region, band: str) -> None:
        with loops(ctx, row, node, band) as i:
            mean, scale = (_scalar(call, band, what, t) for what in ("mean", "scale"))
            for total in (mean, scale):
                total.set(constant_as(0, t))
            with loops(ctx, size, node, f"{band}mean", len(row)) as j:
                mean.add(x.at((*i, *j)))
            mean.set(_binary(call, "/", mean.value, count))
            with loops(ctx, size, node, f"{band}variance", len(row)) as j:
                away = _binary(call, "-", x.at((*i, *j)), mean.value)
                scale.add(_binary(call, "*", away, away))
            variance = _binary(call, "/", scale.value, count)
            scale.set(_math(call, "sqrt", _binary(call, "+", variance, eps)))
            with loops(ctx, size, node, band, len(row)) as j:
                away = _binary(call, "-", x.at((*i, *j)), mean.value)
                scaled = _binary(call, "*", _binary(call, "/", away, scale.value), gamma.at(j))
                store(ctx, region, (*i, *j), _binary(call, "+", scaled, beta.at(j)), node)

    return call.pending(operands, x.shape, write)
