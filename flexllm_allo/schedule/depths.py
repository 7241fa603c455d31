"""Depths of FIFOs, set in a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir import nodes as ir
from ..ir.walk import Node, buffers, calls, rewrite

Key = tuple[str, str]
"""A function, and the stream it declares."""


def with_depths(program: ir.Program, depths: Mapping[Key, int]) -> ir.Program:
    """The program with other depths of streams; FIFO parameters show the depth of what they are given."""
    table = dict(depths)
    made: dict[str, ir.Function] = {}
    for function in reversed(program.functions):  # callers come before what they call
        own = buffers(function)
        for call in calls(function):
            for param, arg in zip(program.function(call.func).params, call.args, strict=True):
                if param.is_stream and isinstance(arg, ir.View):
                    given = table.get((function.name, arg.buffer), own[arg.buffer].depth or 0)
                    key = call.func, param.name
                    table[key] = max(given, table.get(key, 0))
        made[function.name] = _with_own(function, table)
    return replace(program, functions=tuple(made[f.name] for f in program.functions))


def _with_own(function: ir.Function, table: Mapping[Key, int]) -> ir.Function:
    def sized(buffer: ir.Buffer) -> ir.Buffer:
        depth = table.get((function.name, buffer.name))
        return buffer if depth is None or depth == buffer.depth else replace(buffer, depth=depth)

    def visit(node: Node) -> Node | None:
        return replace(node, buffer=sized(node.buffer)) if isinstance(node, ir.Alloc) else None

    if not any(name == function.name for name, _ in table):
        return function
    params = tuple(map(sized, function.params))
    return replace(function, params=params, body=rewrite(function.body, visit))


__all__ = ["with_depths"]
