"""The headers every kernel begins with, in compiled form: they take longer than most kernels.

The text of a kernel stays as it is. The headers that it names first are named in front of it once more, and
there the compiler reads what it made of them before.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ...errors import ToolError
from .emit import INCLUDES
from .toolchain import Tool, run_tool

HEADERS = "".join(f"#include <{name}>\n" for name in (*INCLUDES, "flexllm_numerics.h"))
"""What the text of every kernel includes."""

WORTHWHILE = 2
"""Programs with the same flags from which on it pays: to compile the headers takes three times as long."""

_PREFIX = "flexllm-compiled-headers-"
_NAME = "headers.h"
_lock = Lock()
_seen: dict[tuple[str, ...], int] = {}
_made: dict[tuple[str, ...], tempfile.TemporaryDirectory[str]] = {}


def precompiled(compiler: Tool, flags: Sequence[str]) -> list[str]:
    """Further flags for a kernel to be compiled with these; none for the first kernel of a process.

    g++ alone reads the headers themselves where the file is not for its flags.
    """
    if not re.search(r"(^|-)g\+\+", Path(compiler.name).name):
        return []
    key = (str(compiler.path), *flags)
    with _lock:
        _seen[key] = _seen.get(key, 0) + 1
        if _seen[key] == WORTHWHILE:
            _make(key)
        return ["-include", f"{_made[key].name}/{_NAME}"] if key in _made else []


def _make(key: tuple[str, ...]) -> None:
    try:
        _clear()
        folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
    except OSError:
        return
    path = Path(folder.name)
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # until the process ends, however it does
        (path / _NAME).write_text(HEADERS)
        run_tool([*key, "-x", "c++-header", _NAME, "-o", f"{_NAME}.gch"], path, "headers.log")
    except (ToolError, OSError):  # no room, say; what is wrong with the headers the kernel itself will tell
        os.close(lock)
        folder.cleanup()
        return
    _made[key] = folder


def _clear() -> None:
    """Remove what processes that were killed have left: complete folders that none has locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_NAME}.gch"):
        with suppress(OSError):  # in use, or somebody else's
            lock = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)


__all__ = ["precompiled"]
