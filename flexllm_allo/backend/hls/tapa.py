"""The body of an upper task of TAPA: its channels, and the tasks it starts."""

from __future__ import annotations

from ...ir import nodes as ir
from .blocks import block_comment
from .expressions import emit, stored
from .interface import Instance, Instances
from .scope import Scope
from .writer import Writer


def write_tasks(instance: Instance, instances: Instances, scope: Scope, out: Writer) -> None:
    """Declarations of channels, then one chain of invocations."""
    calls = [s for s in instance.function.body if isinstance(s, ir.Call)]
    for stmt in instance.function.body:
        if isinstance(stmt, ir.Alloc):
            if stmt.buffer.token:
                out.line(block_comment(stmt.buffer))
            out.line(scope.declarator(scope.variable(stmt.buffer.name)) + ";")
    if not calls:
        return
    out.line("tapa::task()")
    with out.indented():
        for call in calls:
            end = ";" if call is calls[-1] else ""
            out.line(f".invoke({_arguments(call, instance, instances, scope)}){end}")


def _arguments(call: ir.Call, caller: Instance, instances: Instances, scope: Scope) -> str:
    """The task, its name where that says more, and what it is given."""
    callee = instances.called(caller, call)
    words = [callee.name]
    if call.label not in ("", call.func, callee.name):
        words.append(f'"{call.label}"')
    for parameter, arg in zip(callee.function.params, call.args, strict=True):
        if isinstance(arg, ir.View):
            words.append(scope.address(arg.buffer, [emit(i, scope) for i in arg.indices]))
        else:
            words.append(stored(arg, parameter.dtype, scope))
    return ", ".join(words)


__all__ = ["write_tasks"]
