"""``allo.ir.utils``: handles of buffers, and what a kernel sees by name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ..lazy import lazy, unsupported

getsourcefile = inspect.getsourcefile

__getattr__ = lazy(__name__, {"MockBuffer": "schedule.trace"})


class MockArg:
    """An argument of a kernel by position."""

    def __init__(self, val: Any, is_affine: bool = True, idx: int | None = None) -> None:
        self.val, self.is_affine, self.idx = val, is_affine, idx


class MockConstant:
    """A literal in a kernel."""

    def __init__(self, val: int | float, ctx: object = None, dtype: object = None) -> None:
        self.val, self.ctx, self.dtype = val, ctx, dtype


def get_global_vars(func: Callable[..., Any]) -> dict[str, Any]:
    """The objects a kernel sees by name: its closure, the locals of the callers, its globals."""
    names = import_module("flexllm_allo.frontend.names")
    frame = inspect.currentframe()
    return names.function_names(func, names.caller_names(frame.f_back if frame else None))


def parse_ast(fn: Callable[..., Any] | str, verbose: bool = False) -> ast.Module:
    """The syntax tree of a kernel; `verbose` is accepted for Allo's programs."""
    del verbose
    source = import_module("flexllm_allo.frontend.source")
    found = source.string_source(fn) if isinstance(fn, str) else [source.function_source(fn)]
    return ast.Module([item.tree for item in found], [])


def get_all_df_kernels(s: Any) -> list[Any]:
    """The functions that the top function of a dataflow design calls."""
    calls = import_module("flexllm_allo.ir.walk").walk(s.program.function(s.program.top).body)
    names = {node.func for node in calls if type(node).__name__ == "Call"}
    return [f for f in s.program.functions if f.name in names]


def get_kwarg(keywords: Sequence[ast.keyword], name: str) -> ast.expr:
    """The value of a keyword argument in a syntax tree."""
    for keyword in keywords:
        if keyword.arg == name:
            return keyword.value
    raise RuntimeError(f"Keyword argument {name} not found")


def get_kwarg_value(keywords: Sequence[ast.keyword], name: str, default: Any = None) -> Any:
    """The literal value of a keyword argument in a syntax tree, or the default."""
    found = [k.value for k in keywords if k.arg == name]
    return ast.literal_eval(found[0]) if found else default


def get_extra_type_hints(dtype: Any) -> str:
    """``"s"`` signed, ``"u"`` unsigned, ``"_"`` for types without a sign."""
    kind = type(dtype).__name__
    return "s" if kind in ("Int", "Fixed") else "u" if kind in ("UInt", "UFixed") else "_"


def resolve_generic_types(
    global_vars: dict[str, Any], type_params: Sequence[Any], values: Sequence[Any]
) -> dict[str, Any]:
    """The names in `global_vars` with the type parameters bound to the values that are no instance ids."""
    names = [str(getattr(p, "name", None) or getattr(p, "__name__", p)) for p in type_params]
    return {**global_vars, **dict(zip(names, (v for v in values if not isinstance(v, str)), strict=True))}


get_func_id_from_param_types = unsupported(
    "get_func_id_from_param_types", "instances are found by their template arguments", "s.instances(kernel)"
)

__all__ = ["MockArg", "MockConstant", "get_global_vars", "parse_ast"]
