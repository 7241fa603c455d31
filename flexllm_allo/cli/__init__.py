"""The command line. Commands parse options, call the library and write results; there is no logic here.

Results go to stdout and to the files named, progress and errors to stderr. A refusal (`FlexError`)
and a bad option end with exit code 2; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

from . import designs, quantization, running
from .app import app


def main() -> None:
    """Entry point of ``flexllm``."""
    app()


__all__ = ["app", "designs", "main", "quantization", "running"]
