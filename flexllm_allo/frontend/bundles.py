"""Bundles: several arrays that travel through calls as one argument.

A class derived from `Bundle` lists arrays by name and type.  A kernel's parameter of that type
stands for one parameter per array; ``Layer[L]`` stands for L bundles stacked, every array with a
leading dimension more.  Inside the kernel ``p.wq`` is an array, ``p`` (or ``p[i]`` of a stack) an
argument of other kernels.  All of it is rewritten before the kernel is lowered, so nothing behind
the frontend knows of bundles: the kernel

    def layer(x: float32[E], w: Layer): ... w.wq ...
    def model(x: float32[E], all: Layer[L]): ... layer(x, all[l]) ...

is lowered as ``layer(x, wq, wk)`` and ``model(x, wq, wk)`` with ``layer(x, wq[l], wk[l])``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Mapping
from typing import Any

from ..dsl import Bundle

Fields = dict[str, ast.expr]


def expand_bundles(tree: ast.FunctionDef, fn: Callable[..., Any]) -> ast.FunctionDef:
    """The kernel with its bundle parameters replaced by one parameter per array.

    Such a parameter is named ``bundle.array``, which no Python name can be.
    """
    visible = _visible(fn)
    found: dict[str, Fields] = {}
    args: list[ast.arg] = []
    for arg in tree.args.args:
        fields = _fields(arg.annotation, visible)
        if fields is None:
            args.append(arg)
            continue
        found[arg.arg] = fields
        for name, annotation in fields.items():
            made = ast.arg(f"{arg.arg}.{name}", annotation)
            args.append(ast.copy_location(made, arg))
    if not found:
        return tree
    tree = copy.copy(tree)
    tree.args = copy.copy(tree.args)
    tree.args.args = args
    expander = _Expander(found)
    tree.body = [expander.visit(statement) for statement in tree.body]
    return tree


def _visible(fn: Callable[..., Any]) -> Mapping[str, Any]:
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None) or ()
    names: dict[str, Any] = dict(getattr(fn, "__globals__", {}))
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        names[name] = cell.cell_contents
    return names


def _fields(annotation: ast.expr | None, visible: Mapping[str, Any]) -> Fields | None:
    """The arrays of a bundle annotation, or None for any other annotation."""
    stack: list[ast.expr] = []
    base = annotation
    if isinstance(base, ast.Subscript):
        stack = list(base.slice.elts) if isinstance(base.slice, ast.Tuple) else [base.slice]
        base = base.value
    kind = visible.get(base.id) if isinstance(base, ast.Name) else None
    if not (isinstance(kind, type) and issubclass(kind, Bundle)):
        return None
    assert annotation is not None
    fields: Fields = {}
    for name, text in kind.__annotations__.items():
        field = ast.parse(str(text), mode="eval").body
        if stack:
            field = _stacked(field, stack)
        for node in ast.walk(field):
            ast.copy_location(node, annotation)
        fields[name] = field
    return fields


def _stacked(field: ast.expr, stack: list[ast.expr]) -> ast.expr:
    """``T[M, N]`` with the extents of the stack in front."""
    dims: list[ast.expr] = []
    base = field
    if isinstance(field, ast.Subscript):
        dims = list(field.slice.elts) if isinstance(field.slice, ast.Tuple) else [field.slice]
        base = field.value
    return ast.Subscript(base, ast.Tuple([*map(copy.deepcopy, stack), *dims], ast.Load()), ast.Load())


class _Expander(ast.NodeTransformer):
    """Replaces ``p.wq``, and ``p`` or ``p[i]`` as arguments of calls."""

    def __init__(self, bundles: dict[str, Fields]) -> None:
        self.bundles = bundles

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.bundles:
            return ast.copy_location(ast.Name(f"{node.value.id}.{node.attr}", node.ctx), node)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        args: list[ast.expr] = []
        for arg in node.args:
            args += self._expanded(arg)
        return self.generic_visit(ast.copy_location(ast.Call(node.func, args, node.keywords), node))

    def _expanded(self, arg: ast.expr) -> list[ast.expr]:
        base = arg
        while isinstance(base, ast.Subscript):
            base = base.value
        if not isinstance(base, ast.Name) or base.id not in self.bundles:
            return [arg]
        return [_renamed(arg, f"{base.id}.{name}") for name in self.bundles[base.id]]


def _renamed(arg: ast.expr, name: str) -> ast.expr:
    """``p[i]`` with another name for p."""
    if isinstance(arg, ast.Subscript):
        made = ast.Subscript(_renamed(arg.value, name), copy.deepcopy(arg.slice), ast.Load())
        return ast.copy_location(made, arg)
    return ast.copy_location(ast.Name(name, ast.Load()), arg)
