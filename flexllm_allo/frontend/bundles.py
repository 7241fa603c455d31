"""Bundles: several arrays that travel through calls as one argument.

A class derived from `Bundle` lists arrays by name and type.  A kernel's parameter of that type
stands for one parameter per array; ``Layer[L]`` stands for L bundles stacked, every array with a
leading dimension more.  Inside the kernel ``p.wq`` is an array, ``p`` (or ``p[i]`` of a stack) an
argument of other kernels.  All of it is rewritten before the kernel is lowered, so nothing behind
the frontend knows of bundles: the kernel

    def layer(x: float32[E], w: Layer): ... w.wq ...
    def model(x: float32[E], all: Layer[L]): ... layer(x, all[l]) ...

is lowered as ``layer(x, wq, wk)`` and ``model(x, wq, wk)`` with ``layer(x, wq[l], wk[l])``.

A bundle with parameters, ``class Matrix(Bundle, of="N, K")``, is written ``Matrix[W, E]``; its fields
name them.  A field may be a bundle itself (``w.wq`` is then an argument, ``w.wq.codes`` an array), and
the class may be an attribute of a template argument, ``wq: R.block.Weight[W, E]``; its fields reach
that object, here ``R.block``, as ``Self``.

A list of arrays, ``W: int4[M, C][P]``, is a bundle without names: P arrays, each a memory (and a port) of its
own.  ``W`` is an argument of calls, ``W[p]`` one of the arrays, where p is a number or the variable of a
`meta_for` (`array_lists`).
"""

from __future__ import annotations

import ast
import copy
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from ..dsl import Bundle
from .array_lists import list_fields, lists_of
from .names import NotConstant, evaluate

Fields = dict[str, ast.expr | None]
"""Annotations of the arrays by their path in the bundle: ``wq.codes``; None for a bundle without arrays."""


def expand_bundles(tree: ast.FunctionDef, names: Mapping[str, Any]) -> tuple[ast.FunctionDef, dict[str, Any]]:
    """The kernel with its bundle parameters replaced by one parameter per array.

    Such a parameter is named ``bundle.array``, which no Python name can be.

    Args:
        names: what the kernel's annotations can see, explicit template arguments included.

    Returns:
        The kernel, and names that the fields use and only the modules of the bundles know.
    """
    found: dict[str, Fields] = {}
    known: dict[str, Any] = {}
    args: list[ast.arg] = []
    for arg in tree.args.args:
        fields = _fields(arg.annotation, names, known)
        if fields is None:
            args.append(arg)
            continue
        found[arg.arg] = fields
        for name, annotation in fields.items():
            if annotation is None:
                continue
            for node in ast.walk(annotation):
                ast.copy_location(node, arg.annotation or arg)
            made = ast.arg(f"{arg.arg}.{name}", annotation)
            args.append(ast.copy_location(made, arg))
    if not found:
        return tree, known
    tree = copy.copy(tree)
    tree.args = copy.copy(tree.args)
    tree.args.args = args
    expander = _Expander(found)
    tree.body = [expander.visit(copy.deepcopy(statement)) for statement in tree.body]
    return tree, known


def visible_names(fn: Callable[..., Any]) -> Mapping[str, Any]:
    """Globals and closure of a function."""
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None) or ()
    names: dict[str, Any] = dict(getattr(fn, "__globals__", {}))
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # a cell that is filled later
            continue
    return names


def _peeled(annotation: ast.expr | None) -> tuple[ast.expr | None, list[list[ast.expr]]]:
    """``T[M][L]`` as T and the subscripts, innermost first."""
    subscripts: list[list[ast.expr]] = []
    while isinstance(annotation, ast.Subscript):
        part = annotation.slice
        subscripts.insert(0, list(part.elts) if isinstance(part, ast.Tuple) else [part])
        annotation = annotation.value
    return annotation, subscripts


def _fields(annotation: ast.expr | None, names: Mapping[str, Any], known: dict[str, Any]) -> Fields | None:
    """The arrays of a bundle annotation, or None for any other annotation; adds to the `known` names."""
    base, subscripts = _peeled(annotation)
    kind = _bundle(base, names)
    if kind is None or base is None:
        return list_fields(annotation, names)
    replaced: dict[str, ast.expr] = {}
    if kind.__of__ and subscripts:
        replaced = dict(zip(kind.__of__, subscripts.pop(0), strict=False))
    if isinstance(base, ast.Attribute):
        replaced["Self"] = base.value
    home = vars(sys.modules[kind.__module__])
    inside = ChainMap(dict(names), home)
    found: Fields = {}
    for name, text in kind.__annotations__.items():
        field = _Substitution(replaced).visit(ast.parse(str(text), mode="eval").body)
        used = {n.id for n in ast.walk(field) if isinstance(n, ast.Name)}
        known.update((n, home[n]) for n in used if n in home and n not in names)
        nested = _fields(field, inside, known)
        leaves: Fields = {name: field}
        if nested is not None:
            leaves = {f"{name}.{path}": leaf for path, leaf in nested.items()} or {name: None}
        for path, leaf in leaves.items():
            for stack in subscripts:
                leaf = leaf and _stacked(leaf, stack)
            found[path] = leaf
    return found


def _bundle(base: ast.expr | None, names: Mapping[str, Any]) -> type[Bundle] | None:
    """The bundle class that an expression denotes, if it does."""
    if isinstance(base, ast.Name):
        kind = names.get(base.id)
    elif isinstance(base, ast.Attribute):
        try:
            kind = evaluate(base, names, lambda _: False)
        except NotConstant:
            return None
    else:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, Bundle) else None


def _stacked(field: ast.expr, stack: list[ast.expr]) -> ast.expr:
    """``T[M, N]`` with the extents of the stack in front."""
    dims: list[ast.expr] = []
    base = field
    if isinstance(field, ast.Subscript):
        dims = list(field.slice.elts) if isinstance(field.slice, ast.Tuple) else [field.slice]
        base = field.value
    return ast.Subscript(base, ast.Tuple([*map(copy.deepcopy, stack), *dims], ast.Load()), ast.Load())


class _Substitution(ast.NodeTransformer):
    """Names in an annotation replaced by expressions."""

    def __init__(self, replaced: Mapping[str, ast.expr]) -> None:
        self.replaced = replaced

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return copy.deepcopy(self.replaced.get(node.id, node))


class _Expander(ast.NodeTransformer):
    """Replaces ``p.wq.codes``, and ``p``, ``p[i]`` or ``p.wq`` as arguments of calls."""

    def __init__(self, bundles: dict[str, Fields]) -> None:
        self.bundles = bundles
        self.lists = lists_of(f"{name}.{field}" for name, fields in bundles.items() for field in fields)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        path = _path(node)
        if path is None or path.partition(".")[0] not in self.bundles:
            return self.generic_visit(node)
        return ast.copy_location(ast.Name(path, node.ctx), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        args: list[ast.expr] = []
        for arg in node.args:
            args += self._expanded(arg)
        return self.generic_visit(ast.copy_location(ast.Call(node.func, args, node.keywords), node))

    def _expanded(self, arg: ast.expr) -> list[ast.expr]:
        base, subscripts = _peeled(arg)
        path = _path(base)
        if path is None or (subscripts and path in self.lists):
            return [arg]
        name, _, inner = path.partition(".")
        fields = self.bundles.get(name)
        if fields is None or fields.get(inner) is not None:
            return [arg]
        below = [f for f in fields if not inner or f == inner or f.startswith(f"{inner}.")]
        if inner and not below:  # no such field: told where arrays are looked up
            return [arg]
        return [_renamed(arg, f"{name}.{field}") for field in below if fields[field] is not None]


def _path(node: ast.expr | None) -> str | None:
    """``p.wq.codes`` of an attribute chain on a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = _path(node.value)
        return front and f"{front}.{node.attr}"
    return None


def _renamed(arg: ast.expr, name: str) -> ast.expr:
    """``p[i]`` with another name for p."""
    if isinstance(arg, ast.Subscript):
        made = ast.Subscript(_renamed(arg.value, name), copy.deepcopy(arg.slice), ast.Load())
        return ast.copy_location(made, arg)
    return ast.copy_location(ast.Name(name, ast.Load()), arg)
