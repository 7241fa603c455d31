"""Traversal and rewriting of the IR, shared by every pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any, cast

from . import nodes as ir
from .memo import remembered

Node = Any

_EXPRS = (
    ir.Const, ir.LoopVar, ir.Load, ir.Unary, ir.Binary, ir.Logic, ir.Select, ir.Cast, ir.Bitcast,
    ir.BitSlice, ir.Math,
)  # fmt: skip
_STMTS = (ir.Alloc, ir.Store, ir.Put, ir.Get, ir.For, ir.While, ir.If, ir.Call)
_NODES = (*_EXPRS, *_STMTS, ir.View)


def is_expr(node: object) -> bool:
    """Whether a node is an expression."""
    return isinstance(node, _EXPRS)


@cache
def _child_fields(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a node class that hold nodes, alone or in tuples, by their annotations."""
    words = {"Expr", "Stmt", *(node.__name__ for node in _NODES)}
    return tuple(f.name for f in fields(kind) if words & set(re.findall(r"\w+", str(f.type))))


def children(node: Node) -> Iterator[Node]:
    """Direct sub-nodes (expressions, views, statements) in source order."""
    for name in _child_fields(node.__class__):
        value = getattr(node, name)
        if isinstance(value, tuple):
            yield from cast(tuple[Any, ...], value)
        elif value is not None:
            yield value


def walk(node: Node | tuple[Node, ...]) -> Iterator[Node]:
    """The node and everything below it, parents first, in source order."""
    stack: list[Node] = list(cast(tuple[Any, ...], node)[::-1]) if isinstance(node, tuple) else [node]
    while stack:
        here: Any = stack.pop()
        yield here
        for name in reversed(_child_fields(here.__class__)):
            value = getattr(here, name)
            if isinstance(value, tuple):
                stack.extend(reversed(cast(tuple[Any, ...], value)))
            elif value is not None:
                stack.append(value)


def rewrite(node: Node, fn: Callable[[Node], Node | None]) -> Node:
    """Rebuild bottom-up: `fn` gets every node after its children and returns its replacement.

    None keeps the node.  For statements `fn` may return a tuple, which is spliced in its place.
    """
    if isinstance(node, tuple):
        return rewrite_body(node, fn)  # pyright: ignore[reportUnknownArgumentType]
    changes: dict[str, Any] = {}
    for name in _child_fields(node.__class__):
        value = getattr(node, name)
        if value is None:
            continue
        if isinstance(value, tuple):
            new = rewrite_body(value, fn)  # pyright: ignore[reportUnknownArgumentType]
        else:
            new = rewrite(value, fn)
        if new is not value:
            changes[name] = new
    if changes:
        node = replace(node, **changes)
    out = fn(node)
    return node if out is None else out


def rewrite_body(body: tuple[Node, ...], fn: Callable[[Node], Node | None]) -> tuple[Node, ...]:
    """`rewrite` for a sequence; replacements that are tuples are spliced."""
    out: list[Node] = []
    changed = False
    for item in body:
        new = rewrite(item, fn)
        changed = changed or new is not item
        if isinstance(new, tuple):
            out.extend(new)  # pyright: ignore[reportUnknownArgumentType]
        else:
            out.append(new)
    return tuple(out) if changed else body


def substitute(node: Node, names: dict[str, ir.Expr]) -> Node:
    """Replace loop variables by expressions."""

    def visit(n: Node) -> Node | None:
        return names.get(n.name) if isinstance(n, ir.LoopVar) else None

    return rewrite(node, visit)


def rename_buffers(node: Node, names: dict[str, str]) -> Node:
    """Rename buffers wherever they are used or allocated."""

    def visit(n: Node) -> Node | None:
        match n:
            case ir.Load() | ir.Store() | ir.View() if n.buffer in names:
                return replace(n, buffer=names[n.buffer])
            case ir.Put() if n.stream in names:
                return replace(n, stream=names[n.stream])
            case ir.Get() if n.stream in names or n.target in names:
                stream, target = names.get(n.stream, n.stream), names.get(n.target, n.target)
                return replace(n, stream=stream, target=target)
            case ir.Alloc() if n.buffer.name in names:
                return replace(n, buffer=replace(n.buffer, name=names[n.buffer.name]))
            case _:
                return None

    return rewrite(node, visit)


def statements(body: tuple[ir.Stmt, ...]) -> Iterator[ir.Stmt]:
    """All statements, those inside others too, in source order: `walk` without the expressions."""
    stack = list(body[::-1])
    while stack:
        here = stack.pop()
        yield here
        match here:
            case ir.For() | ir.While():
                stack.extend(here.body[::-1])
            case ir.If():
                stack.extend(here.otherwise[::-1])
                stack.extend(here.then[::-1])
            case _:
                pass


_Rare = tuple[tuple[ir.Alloc, ...], tuple[ir.Call, ...]]


@remembered
def _rare(node: ir.Function | ir.For) -> _Rare:
    """The declarations and the calls in a body, the two that most statements are not."""
    allocs: list[ir.Alloc] = []
    called: list[ir.Call] = []
    stack = list(node.body[::-1])
    while stack:
        here = stack.pop()
        match here:
            case ir.Alloc():
                allocs.append(here)
            case ir.Call():
                called.append(here)
            case ir.For():  # what is known of one that a primitive left as it was, still holds
                inner = _rare(here)
                allocs += inner[0]
                called += inner[1]
            case ir.While():
                stack.extend(here.body[::-1])
            case ir.If():
                stack.extend(here.otherwise[::-1])
                stack.extend(here.then[::-1])
            case _:
                pass
    return tuple(allocs), tuple(called)


@remembered
def _table(function: ir.Function) -> dict[str, ir.Buffer]:
    table = {b.name: b for b in function.params}
    table.update((alloc.buffer.name, alloc.buffer) for alloc in allocations(function))
    return table


def buffers(function: ir.Function) -> dict[str, ir.Buffer]:
    """All buffers of a function by name: parameters, then locals in program order."""
    return dict(_table(function))


def allocations(node: ir.Function | ir.For) -> tuple[ir.Alloc, ...]:
    """All declarations in a body, in program order."""
    return _rare(node)[0]


def calls(node: ir.Function | ir.For) -> tuple[ir.Call, ...]:
    """All calls in a body, in program order."""
    return _rare(node)[1]
