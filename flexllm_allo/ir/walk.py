"""Traversal and rewriting of the IR, shared by every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from . import nodes as ir

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


def children(node: Node) -> Iterator[Node]:
    """Direct sub-nodes (expressions, views, statements) in source order."""
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, _NODES):
            yield value
        elif isinstance(value, tuple):
            for item in cast(tuple[Any, ...], value):
                if isinstance(item, _NODES):
                    yield item


def walk(node: Node | tuple[Node, ...]) -> Iterator[Node]:
    """The node and everything below it, parents first, in source order."""
    if isinstance(node, tuple):
        for item in cast(tuple[Any, ...], node):
            yield from walk(item)
        return
    yield node
    if isinstance(node, ir.Function):
        yield from walk(node.body)
        return
    for child in children(node):
        yield from walk(child)


def rewrite(node: Node, fn: Callable[[Node], Node | None]) -> Node:
    """Rebuild bottom-up: `fn` gets every node after its children and returns its replacement.

    None keeps the node.  For statements `fn` may return a tuple, which is spliced in its place.
    """
    if isinstance(node, tuple):
        return rewrite_body(node, fn)  # pyright: ignore[reportUnknownArgumentType]
    changes: dict[str, Any] = {}
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, _NODES):
            new = rewrite(value, fn)
            if new is not value:
                changes[f.name] = new
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):  # pyright: ignore
            if isinstance(value[0], _NODES):
                new = rewrite_body(value, fn)  # pyright: ignore[reportUnknownArgumentType]
                if new is not value:
                    changes[f.name] = new
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


def buffers(function: ir.Function) -> dict[str, ir.Buffer]:
    """All buffers of a function by name: parameters, then locals in program order."""
    table = {b.name: b for b in function.params}
    for node in walk(function.body):
        if isinstance(node, ir.Alloc):
            table[node.buffer.name] = node.buffer
    return table
