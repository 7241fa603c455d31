"""Slices as arguments: their elements do not lie side by side, so the callee works on a copy."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FrontendError, Place
from ..ir import nodes as ir
from ..ir.walk import walk
from .axes import Region, whole
from .context import Context
from .slices import region_of
from .tensors import assign, loaded, steady, stored


@dataclass(frozen=True)
class Borrowed:
    """What is passed for a slice or an expression: a copy. Without `region` nobody else sees it."""

    region: Region | None
    copy: ir.Buffer
    node: ast.expr


def borrow(ctx: Context, node: ast.expr) -> Borrowed | None:
    """Copy the slice an argument names; None when it names none."""
    region = region_of(ctx, node) if isinstance(node, ast.Subscript | ast.Name) else None
    if region is None:
        return None
    region = steady(ctx, region, node)
    return Borrowed(region, stored(ctx, loaded(region, node, ctx), node).buffer, node)


def converted(ctx: Context, value: Borrowed, parameter: ir.Buffer) -> tuple[ir.View, ir.Buffer] | None:
    """The value of an expression in the parameter's element type; None where nothing is to be done."""
    if value.region is not None or value.copy.dtype == parameter.dtype or value.copy.shape != parameter.shape:
        return None
    buffer = ir.Buffer(
        ctx.fresh(value.copy.name), parameter.dtype, parameter.shape, span=ctx.span(value.node)
    )
    ctx.emit(ir.Alloc(buffer, span=buffer.span))
    assign(ctx, whole(buffer), loaded(whole(value.copy), value.node, ctx), value.node)
    return ir.View(buffer.name, (), buffer.span), buffer


def give_back(
    ctx: Context, callee: ir.Function, args: Sequence[ir.Expr | ir.View], borrowed: dict[int, Borrowed]
) -> None:
    """After the call: what the callee wrote to a copy goes to the array.

    Raises:
        FrontendError: FX107, another argument is part of the same array and one of them is written.
    """
    written = written_parameters(callee, ctx.program.functions) if borrowed else set[str]()
    names = [p.name for p in callee.params]
    origins = {i: b.region.buffer.name for i, b in borrowed.items() if b.region is not None}
    for position, part in borrowed.items():
        if part.region is None:
            continue
        for other, arg in enumerate(args):
            origin = origins.get(other) or (arg.buffer if isinstance(arg, ir.View) else None)
            both = {names[position], names[other]}
            if other != position and origin == origins[position] and both & written:
                raise _shared(ctx, part, callee)
        if names[position] in written:
            assign(ctx, part.region, loaded(whole(part.copy), part.node, ctx), part.node)


def _shared(ctx: Context, part: Borrowed, callee: ir.Function) -> FrontendError:
    name = part.region.buffer.name if part.region else part.copy.name
    message = f"a slice of {name} and another part of it are arguments of {callee.origin}, which writes one"
    places = [Place(ctx.span(part.node)), Place(callee.span, "the kernel")]
    return FrontendError("FX107", message, places, "copy the slice into an array of its own before the call")


def written_parameters(function: ir.Function, functions: Sequence[ir.Function]) -> set[str]:
    """The parameters whose elements a function may store to, itself or through what it calls."""
    if function.extern is not None:
        return {p.name for p in function.params if p.shape}
    found: set[str] = set()
    for node in walk(function.body):
        match node:
            case ir.Store():
                found.add(node.buffer)
            case ir.Get():
                found.add(node.target)
            case ir.Call():
                callee = next((f for f in functions if f.name == node.func), None)
                inner = written_parameters(callee, functions) if callee else set[str]()
                params = callee.params if callee else ()
                for parameter, arg in zip(params, node.args, strict=False):
                    if isinstance(arg, ir.View) and parameter.name in inner:
                        found.add(arg.buffer)
            case _:
                pass
    return found & {p.name for p in function.params}
