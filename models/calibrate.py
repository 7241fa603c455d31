"""Calibration tokens from text: a file, a folder of files, or what ships with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import QuantError
from flexllm_allo.quant.calibration import calibration_samples
from flexllm_allo.quant.passes import needs_data
from flexllm_allo.quant.recipes import Recipe

DEFAULT_TEXT = Path(__file__).parent / "tiny" / "calibration.txt"
"""English technical prose, disjoint from the held-out text."""


@dataclass(frozen=True)
class Calibration:
    """Which text is looked at, by recipes that look at any.

    Attributes:
        text: a UTF-8 file, or a folder whose ``*.txt`` files are read in order of their names; None is the
            text that ships with the package.
        samples: how many windows of the text.
        length: tokens in each, BOS included; at most the model's context.
        seed: of the choice of windows.
    """

    text: Path | None = None
    samples: int = 64
    length: int = 256
    seed: int = 0


class Tokenizer(Protocol):
    """What calibration needs of a checkpoint."""

    @property
    def config(self) -> Any: ...
    def encode(self, text: str) -> list[int]: ...


def calibration_tokens(checkpoint: Tokenizer, chosen: Calibration | None = None) -> NDArray[np.int32]:
    """Token ids [samples, length] from a text.

    Raises:
        QuantError: FX607, the text cannot be read, or is too short.
    """
    chosen = chosen or Calibration()
    content = _read(DEFAULT_TEXT if chosen.text is None else chosen.text)
    tokens = checkpoint.encode(content)
    bos = checkpoint.config.bos_token_id
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    length = min(chosen.length, checkpoint.config.max_position_embeddings)
    return calibration_samples(tokens, bos, chosen.samples, length, chosen.seed)


def calibration_data(
    checkpoint: Tokenizer, recipe: Recipe, chosen: Calibration | None = None
) -> tuple[NDArray[np.int32] | None, dict[str, Any] | None]:
    """Token ids and what they are, for reports; None and None when no pass of the recipe looks at any."""
    if not needs_data(recipe.passes):
        return None, None
    chosen = chosen or Calibration()
    tokens = calibration_tokens(checkpoint, chosen)
    digest = hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
    return tokens, {
        "tokens_sha256": digest,
        "samples": chosen.samples,
        "length": tokens.shape[1],
        "seed": chosen.seed,
    }


def _read(path: Path) -> str:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise QuantError("FX607", f"{path} holds no *.txt file", hint="name a text file, or a folder of them")
    try:
        return "\n\n".join(file.read_text(encoding="utf-8") for file in files)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise QuantError("FX607", f"cannot read the calibration text {path}: {reason}") from error
