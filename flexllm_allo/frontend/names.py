"""Which Python objects a kernel can see by name, and the values of compile-time expressions."""

from __future__ import annotations

import ast
import builtins
import inspect
import sysconfig
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import FlexError
from ..ir.dtypes import ArrayType, DType, StreamType

Names = dict[str, Any]

_VISIBLE = (int, float, DType, ArrayType, StreamType, types.FunctionType, types.ModuleType)
_SKIPPED = {"customize", "build", "caller_names", "get_global_vars"}
_PYTHON_TYPES: tuple[object, ...] = (int, float, bool, "int", "float")
_LIBRARY = sysconfig.get_path("stdlib")
_PACKAGE = __name__.partition(".")[0]


def caller_names(frame: types.FrameType | None, home: Mapping[str, Any] | None = None) -> Names:
    """Variables of the calling functions and their module a kernel may use, the innermost first.

    The original walks outwards and lets the outermost win; here the first found wins.  Sizes, types
    and functions hide globals of the same name when caller and kernel are in one module; whatever
    else a caller has (but arrays) is only there where no global has the name.

    Args:
        home: the globals of the kernel.
    """
    found: Names = {}
    while frame is not None and not (found and _installed(frame)):
        module = frame.f_code.co_name == "<module>"
        inner = frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE
        if not (inner and frame.f_code.co_name in _SKIPPED):
            same = not module and (home is None or frame.f_globals is home)
            for name, value in frame.f_locals.items():
                hides = same and isinstance(value, _VISIBLE)
                if (hides or home is None or name not in home) and not isinstance(value, np.ndarray):
                    found.setdefault(name, value)
        if module:
            break
        frame = frame.f_back
    return found


def _installed(frame: types.FrameType) -> bool:
    """Whether a frame is of the standard library or an installed package, such as a test runner."""
    file = frame.f_code.co_filename
    return file.startswith((_LIBRARY, "<frozen")) or "site-packages" in file or "dist-packages" in file


def function_names(
    fn: Callable[..., Any], callers: Mapping[str, Any], home: Mapping[str, Any] | None = None
) -> Names:
    """Names visible to a kernel: closure cells, then callers' variables, then globals.

    Args:
        home: the globals that `callers` may hide; in another module they only add to the globals.
    """
    fn = inspect.unwrap(fn)
    if (own := getattr(fn, "__kernel_names__", None)) is not None:
        return own
    mine: Names = getattr(fn, "__globals__", {})
    found: Names = {**mine, **callers} if home is None or mine is home else {**callers, **mine}
    closure = getattr(fn, "__closure__", None) or ()
    code = getattr(fn, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), closure, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a cell that is filled later (recursion between local functions)
            continue
    return found


def is_kernel(callee: object) -> bool:
    """Whether a function is written for the compiler: some parameter or result has a type of hardware."""
    if not isinstance(callee, types.FunctionType) or hasattr(callee, "__intrinsic__"):
        return False
    return any(t not in _PYTHON_TYPES for t in inspect.unwrap(callee).__annotations__.values())


class NotConstant(Exception):
    """The expression needs a run-time value."""


def evaluate(node: ast.expr, names: Mapping[str, Any], runtime: Callable[[str], bool]) -> Any:
    """The Python value of an expression all of whose names are known at compile time.

    Args:
        names: the visible objects.
        runtime: tells whether a name is a run-time value (a buffer or a loop variable).

    Raises:
        NotConstant: it depends on a run-time value, an unknown name, or fails to evaluate.
        FlexError: what a function called in it raises.
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
    except FlexError:  # a function called at compile time refuses its argument, in its own words
        raise
    except Exception as error:
        raise NotConstant(str(error)) from error
