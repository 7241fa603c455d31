"""Files that commands read and write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..runtime.outputs import OutputFile


def output(path: Path) -> OutputFile:
    """A file that is written at the end; that it can be is checked now."""
    from ..runtime.outputs import OutputFile

    return OutputFile(path)


def read_text(path: Path) -> str:
    """A text in UTF-8.

    Raises:
        UsageError: FX703, it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            "FX703", f'cannot read the text "{path}": {reason}', hint="a UTF-8 text file"
        ) from error
