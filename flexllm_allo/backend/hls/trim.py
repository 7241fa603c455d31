"""Tasks get only what they use: a memory port that a task does not touch would cost an interconnect."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from ...ir import nodes as ir
from ...ir.walk import walk


def trimmed(program: ir.Program, uppers: Set[str]) -> ir.Program:
    """The program without parameters that its tasks do not use, and without tasks that do nothing.

    Args:
        uppers: the functions that only start tasks; the others compute, and what they call is left alone.
    """
    called = {
        node.func
        for f in program.functions
        if f.name not in uppers
        for node in walk(f.body)
        if isinstance(node, ir.Call)
    }
    done: dict[str, ir.Function] = {}
    for function in program.functions:  # callees first
        if function.name in uppers:
            calls = [s for s in function.body if not isinstance(s, ir.Call) or done[s.func].body]
            body = tuple(_fewer(s, program, done) if isinstance(s, ir.Call) else s for s in calls)
            used = used_names(body)
            fifos = (s for s in body if not isinstance(s, ir.Alloc) or s.buffer.name in used)
            function = replace(function, body=tuple(fifos))
        if function.name not in called and function.name != program.top and function.extern is None:
            function = _without_unused(function)
        done[function.name] = function
    return replace(program, functions=tuple(done.values()))


def _fewer(call: ir.Call, program: ir.Program, done: dict[str, ir.Function]) -> ir.Call:
    """The call with the arguments of the parameters that are left."""
    left = {b.name for b in done[call.func].params}
    before = program.function(call.func).params
    args = tuple(a for b, a in zip(before, call.args, strict=True) if b.name in left)
    return replace(call, args=args)


def _without_unused(function: ir.Function) -> ir.Function:
    used = used_names(function.body)
    params = tuple(b for b in function.params if b.name in used)
    return replace(function, params=params, results=sum(b in function.outputs for b in params))


def used_names(body: tuple[ir.Stmt, ...]) -> set[str]:
    """The buffers that statements name."""
    names: set[str] = set()
    for node in walk(body):
        match node:
            case ir.Load() | ir.Store() | ir.View():
                names.add(node.buffer)
            case ir.Put():
                names.add(node.stream)
            case ir.Get():
                names |= {node.target, node.stream}
            case _:
                pass
    return names


__all__ = ["trimmed", "used_names"]
