"""Names of a module that are looked up when they are first used.

Allo's programs reach everything by attribute after one import (``allo.backend.hls.is_available()``),
and some of its modules offer names that live higher up in this package.  Both go through the module's
``__getattr__``, so that importing the package stays cheap and imports go down only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn

from .errors import TargetError

PACKAGE = __package__ or "flexllm_allo"


def lazy(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module.

    Args:
        module: its ``__name__``.
        names: for each attribute where it is: ``"schedule.trace"`` (the attribute of the same name in
            that module of the package), ``"schedule.trace:Trace"`` (another name there), or ``"."``
            (a submodule of `module`).
    """

    def getattr_(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, attribute = names[name].partition(":")
        if place == ".":
            return import_module(f"{module}.{name}")
        value = getattr(import_module(f"{PACKAGE}.{place}"), attribute or name)
        setattr(sys.modules[module], name, value)
        return value

    return getattr_


def unsupported(name: str, reason: str, instead: str = "") -> Callable[..., NoReturn]:
    """A stand-in for a function of Allo that belongs to another vendor's tool: calling it is refused."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise TargetError("FX402", f"{name} is not supported by this engine: {reason}", hint=instead)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Not supported by this engine: {reason}."
    return refuse
