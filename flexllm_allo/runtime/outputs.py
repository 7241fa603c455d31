"""Result files that are either complete or not there."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError


class OutputFile:
    """A file to be written at the end of a run, checked at its start.

    Args:
        path: where the result goes. The folder must exist; an older result is replaced.

    Raises:
        UsageError: FX702, now rather than after minutes of work, when nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise _refusal(path, f'there is no folder "{path.parent}"')
        if path.is_dir():
            raise _refusal(path, "it is a folder")
        if not os.access(path.parent, os.W_OK):
            raise _refusal(path, f'the folder "{path.parent}" is not writable')

    def write(self, data: bytes) -> None:
        """Replace the file by `data` in one step: a reader sees the old content or the new one."""
        temporary: str | None = None
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, self.path)
            temporary = None
        except OSError as error:
            raise _refusal(self.path, error.strerror or str(error)) from error
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def write_json(self, content: Mapping[str, Any]) -> None:
        """Write `content` as indented JSON."""
        self.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def write_array(self, array: NDArray[Any]) -> None:
        """Write `array` in NumPy's ``.npy`` format."""
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        self.write(stream.getvalue())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refusal(path: Path, reason: str) -> UsageError:
    return UsageError(
        "FX702", f'cannot write "{path}": {reason}', hint="name a file in an existing folder you can write to"
    )
