"""Calibration tokens from text: a file, a folder of files, or what ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import QuantError
from flexllm_allo.quant.calibration import calibration_samples

from .spec import LlamaConfig

DEFAULT_TEXT = Path(__file__).parent / "tiny" / "calibration.txt"
"""English technical prose, disjoint from the held-out text."""
SAMPLES, LENGTH = 32, 256


class Tokenizer(Protocol):
    """What calibration needs of a checkpoint."""

    @property
    def config(self) -> LlamaConfig: ...
    def encode(self, text: str) -> list[int]: ...


def calibration_tokens(
    checkpoint: Tokenizer,
    text: Path | None = None,
    samples: int = SAMPLES,
    length: int = LENGTH,
    seed: int = 0,
) -> NDArray[np.int32]:
    """Token ids [samples, length] from a text.

    Args:
        text: a UTF-8 file, or a folder whose ``*.txt`` files are read in order of their names; by default
            the text that ships with the package.
        length: tokens per sample, at most the model's context.

    Raises:
        QuantError: FX607, the text cannot be read, or is too short.
    """
    content = _read(DEFAULT_TEXT if text is None else text)
    tokens = checkpoint.encode(content)
    bos = checkpoint.config.bos_token_id
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    length = min(length, checkpoint.config.max_position_embeddings)
    return calibration_samples(tokens, bos, samples, length, seed)


def _read(path: Path) -> str:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise QuantError("FX607", f"{path} holds no *.txt file", hint="name a text file, or a folder of them")
    try:
        return "\n\n".join(file.read_text(encoding="utf-8") for file in files)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise QuantError("FX607", f"cannot read the calibration text {path}: {reason}") from error
