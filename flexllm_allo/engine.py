"""The switch to a real, installed Allo: with ``FLEXLLM_ALLO_ENGINE=allo`` the public names are Allo's own.

``from flexllm_allo import customize`` and ``from flexllm_allo.ir.types import int8`` then give what
``allo`` and ``allo.ir.types`` have under those names, so that kernels and schedules of this repository can
be compared on both.  Names that Allo does not have stay ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from .errors import ToolError, UsageError

VARIABLE = "FLEXLLM_ALLO_ENGINE"
OURS, ALLO = "flexllm", "allo"


def engine() -> str:
    """The engine chosen by the environment: ``"flexllm"`` (also when nothing is set) or ``"allo"``.

    Raises:
        UsageError: FX703, the variable has another value.
    """
    name = os.environ.get(VARIABLE) or OURS
    if name not in (OURS, ALLO):
        raise UsageError("FX703", f'{VARIABLE} is "{name}"', hint=f'"{OURS}" or "{ALLO}"')
    return name


def adopted(module: str, names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that Allo's `module` has, if Allo is the engine; nothing otherwise.

    Raises:
        ToolError: FX501, Allo is not installed.
    """
    if engine() == OURS:
        return {}
    try:
        source = import_module(module)
    except ImportError as error:
        raise ToolError(
            "FX501",
            f"{VARIABLE}={ALLO}, and Allo cannot be imported: {error}",
            hint=f"install Allo in this environment, or unset {VARIABLE}",
        ) from error
    return {name: getattr(source, name) for name in names if hasattr(source, name)}
