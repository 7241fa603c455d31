"""Which Python objects a kernel can see by name, and the values of compile-time expressions."""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Callable, Mapping
from typing import Any

from ..ir.dtypes import ArrayType, DType, StreamType

Names = dict[str, Any]

_VISIBLE = (int, float, DType, ArrayType, StreamType, types.FunctionType, types.ModuleType)
_SKIPPED = {"customize", "build", "caller_names"}


def caller_names(frame: types.FrameType | None) -> Names:
    """Locals of the calling functions a kernel may use as sizes and types, the innermost first.

    The original walks outwards and lets the outermost win; here the first found wins.
    """
    found: Names = {}
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            break
        if frame.f_code.co_name not in _SKIPPED:
            for name, value in frame.f_locals.items():
                if isinstance(value, _VISIBLE):
                    found.setdefault(name, value)
        frame = frame.f_back
    return found


def function_names(fn: Callable[..., Any], callers: Mapping[str, Any]) -> Names:
    """Names visible to a kernel: closure cells, then callers' locals, then globals."""
    found: Names = dict(getattr(fn, "__globals__", {}))
    found.update(callers)
    closure = getattr(fn, "__closure__", None) or ()
    code = getattr(fn, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), closure, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a cell that is filled later (recursion between local functions)
            continue
    return found


class NotConstant(Exception):
    """The expression needs a run-time value."""


def evaluate(node: ast.expr, names: Mapping[str, Any], runtime: Callable[[str], bool]) -> Any:
    """The Python value of an expression all of whose names are known at compile time.

    Args:
        names: the visible objects.
        runtime: tells whether a name is a run-time value (a buffer or a loop variable).

    Raises:
        NotConstant: it depends on a run-time value, an unknown name, or fails to evaluate.
    """
    used: Names = {}
    for n in ast.walk(node):
        if isinstance(n, ast.Name):
            if runtime(n.id):
                raise NotConstant(n.id)
            if n.id in names:
                used[n.id] = names[n.id]
            elif not hasattr(builtins, n.id):
                raise NotConstant(n.id)
    code = compile(ast.Expression(node), "<kernel expression>", "eval")
    try:
        return eval(code, used)
    except Exception as error:
        raise NotConstant(str(error)) from error
