"""What ``@template`` says of a kernel's parameters beyond their order: defaults and conditions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import FrontendError, Place


def defaults(fn: Callable[..., Any], bound: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the parameters that neither the call nor its arguments determine."""
    found = dict(bound)
    for name, text in getattr(fn, "__type_defaults__", {}).items():
        if name not in found and _names(text) <= found.keys():
            found[name] = eval(text, {}, found)
    return {name: value for name, value in found.items() if name not in bound}


def check_conditions(fn: Callable[..., Any], bound: Mapping[str, Any], places: Sequence[Place]) -> None:
    """Refuse sizes the kernel is not written for.

    Raises:
        FrontendError: FX108, a condition of ``@template(..., where=...)`` does not hold.
    """
    for text in getattr(fn, "__type_where__", ()):
        if not eval(text, {}, dict(bound)):
            given = ", ".join(f"{n} = {bound[n]}" for n in bound if n in _names(text))
            raise FrontendError("FX108", f"{fn.__name__} needs {text}, got {given}", places)


def _names(text: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(text, mode="eval")) if isinstance(n, ast.Name)}
