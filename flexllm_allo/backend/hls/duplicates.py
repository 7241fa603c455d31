"""Functions that schedules made twice: one in the text for each distinct body.

`to` gives each instance of a kernel callees of its own, which often come out alike.  Two are merged
where all their calls are processes of dataflow regions: there every call is hardware of its own anyway.
Elsewhere functions are engines, and which calls share one is up to the schedule.
"""

from __future__ import annotations

from dataclasses import replace

from ...analysis.syntax import without_spans
from ...errors import UNKNOWN
from ...ir import nodes as ir
from ...ir.memo import remembered
from ...ir.walk import Node, calls, rewrite_body, walk


@remembered
def without_duplicates(program: ir.Program) -> ir.Program:
    """The program with one function for all processes that have the same parameters and body."""
    alike: dict[tuple[str, int], list[str]] = {}
    processes = _processes(program)
    for function in program.functions:
        if function.name in processes:
            alike.setdefault((function.origin, len(function.params)), []).append(function.name)
    candidates = {name for names in alike.values() if len(names) > 1 for name in names}
    kept: dict[tuple[str, int], list[tuple[ir.Function, str]]] = {}
    names: dict[str, str] = {}
    functions: list[ir.Function] = []
    for function in program.functions:  # callees first, so that equal callers of merged ones are equal
        new = replace(function, body=_calling(function.body, names))
        if function.name in candidates:
            plain = _plain(new)
            seen = kept.setdefault((function.origin, len(function.params)), [])
            first = next((name for other, name in seen if other == plain), None)
            if first is not None:
                names[function.name] = first
                continue
            seen.append((plain, function.name))
        functions.append(new)
    return replace(program, functions=tuple(functions)) if names else program


def _processes(program: ir.Program) -> set[str]:
    """The functions that are called as processes only, and keep nothing from call to call."""
    processes: set[str] = set()
    others = {program.top}
    for function in program.functions:
        direct = {id(s) for s in function.body} if function.dataflow or function.concurrent else set[int]()
        for call in calls(function):
            (processes if id(call) in direct else others).add(call.func)
    return {name for name in processes - others if _is_stateless(program.function(name))}


def _is_stateless(function: ir.Function) -> bool:
    static = any(isinstance(n, ir.Alloc) and n.static for n in walk(function.body))
    return function.extern is None and not static


def _calling(body: tuple[ir.Stmt, ...], names: dict[str, str]) -> tuple[ir.Stmt, ...]:
    def call(node: Node) -> Node | None:
        if isinstance(node, ir.Call) and node.func in names:
            return replace(node, func=names[node.func])
        return None

    return rewrite_body(body, call) if names else body


def _plain(function: ir.Function) -> ir.Function:
    """What has to be equal: all but name and places."""
    params = tuple(replace(b, span=UNKNOWN) for b in function.params)
    body = tuple(without_spans(s) for s in function.body)  # pyright: ignore[reportArgumentType]
    return replace(function, name="", params=params, body=body, span=UNKNOWN)  # pyright: ignore


__all__ = ["without_duplicates"]
