"""Which end of a FIFO a function holds, and the names of single FIFOs."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Span
from . import nodes as ir
from .walk import walk

Ends = tuple[Span | None, Span | None]
"""Where a FIFO is written and where it is read, if anywhere."""


def endpoints(function: ir.Function, functions: Iterable[ir.Function]) -> dict[str, Ends]:
    """For every FIFO that a function uses: the first place it is written and the first it is read.

    Args:
        functions: the functions that this one may call.
    """
    table = {f.name: f for f in functions}
    return _ends(function.body, table)


def _ends(body: tuple[ir.Stmt, ...], table: dict[str, ir.Function]) -> dict[str, Ends]:
    ends: dict[str, Ends] = {}

    def add(name: str, writes: Span | None, reads: Span | None) -> None:
        before = ends.get(name, (None, None))
        ends[name] = before[0] or writes, before[1] or reads

    for node in walk(body):
        match node:
            case ir.Put():
                add(node.stream, node.span, None)
            case ir.Get():
                add(node.stream, None, node.span)
            case ir.Call():
                callee = table[node.func]
                inner = _ends(callee.body, table) if any(p.is_stream for p in callee.params) else {}
                for param, arg in zip(callee.params, node.args, strict=True):
                    if param.name in inner and isinstance(arg, ir.View):
                        add(arg.buffer, *inner[param.name])
            case _:
                pass
    return ends


def channel_name(view: ir.View) -> str:
    """The name of one FIFO: ``fifo_0_1``, also for a member of an array of FIFOs."""
    indices = [str(i.value) if isinstance(i, ir.Const) else "?" for i in view.indices]
    return "_".join([view.buffer, *indices])


__all__ = ["Ends", "channel_name", "endpoints"]
