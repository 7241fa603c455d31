"""The line of the user's schedule that called a primitive."""

from __future__ import annotations

import sys
from itertools import islice
from types import FrameType

from ..errors import UNKNOWN, Span


def caller_span() -> Span:
    """The place of the nearest call from outside `flexllm_allo.schedule`."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and _ours(frame):
        frame = frame.f_back
    if frame is None:
        return UNKNOWN
    code = frame.f_code
    line, end_line, col, end_col = next(
        islice(code.co_positions(), frame.f_lasti // 2, None), (frame.f_lineno, None, None, None)
    )
    line = line or frame.f_lineno
    return Span(code.co_filename, line, col or 0, end_line or line, end_col or 0)


def _ours(frame: FrameType) -> bool:
    package = __name__.rpartition(".")[0]
    name = frame.f_globals.get("__name__", "")
    return name == package or name.startswith(package + ".")
