"""From a checkpoint to the folder of a quantized model."""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from ..models.calibrate import LENGTH, SAMPLES, calibration_tokens
from ..models.hf import Checkpoint, load_checkpoint
from ..quant.manifest import MANIFEST
from ..quant.passes import needs_data
from ..quant.pipeline import quantize_tensors
from ..quant.recipes import Recipe, get_recipe
from ..quant.store import Source, check_output, read_quantized, write_quantized
from ..quant.stored import Value

Advance = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Calibration:
    """Which text is looked at, by recipes that look at any.

    Attributes:
        text: a UTF-8 file, or a folder whose ``.txt`` files are taken in the order of their names; None is
            the text that ships with the package.
        samples: how many windows of the text.
        length: tokens in each, BOS included.
        seed: of the choice of windows.
    """

    text: Path | None = None
    samples: int = SAMPLES
    length: int = LENGTH
    seed: int = 0


def quantize_folder(
    directory: Path,
    out: Path,
    recipe: str | Recipe,
    calibration: Calibration | None = None,
    advance: Advance = lambda _done, _total: None,
) -> dict[str, Any]:
    """Quantize the checkpoint in a folder into another one, which is complete or not changed at all.

    Args:
        directory: a Hugging Face folder.
        out: the folder to write; a quantized model there is replaced.
        recipe: one of `quant.recipes`, its name, or a ``.toml`` file.
        calibration: for recipes that look at activations.
        advance: called with (steps done, steps in all).

    Returns:
        ``recipe``, ``weights`` (multiplied ones, the head included), ``bits_per_weight`` (stored, with scales
        and all else), ``bytes_per_token`` (read per token: all but the embedding), ``bytes_on_disk``,
        ``seconds``, ``peak_memory_bytes`` (of the process), ``layers_resumed``.

    Raises:
        UsageError: FX702, `out` cannot be written.
        ModelError: FX601 to FX605, the checkpoint cannot be used.
        QuantError: FX604 to FX607, the recipe or the calibration text cannot.
    """
    start = time.perf_counter()
    found = get_recipe(recipe) if isinstance(recipe, str) else recipe
    check_output(out)
    if (directory / MANIFEST).exists():
        raise QuantError(
            "FX604", f'"{directory}" is quantized already', hint="quantize the float model it was made of"
        )
    checkpoint = load_checkpoint(directory)
    samples, settings = _samples(checkpoint, found, calibration or Calibration())
    resumed: set[str] = set()

    def tensors(done: frozenset[str]) -> Iterator[tuple[str, Value]]:
        resumed.update(name.rpartition(".")[0] for name in done if name.startswith("layers."))
        return quantize_tensors(
            checkpoint, found, samples, lambda _name, step, total: advance(step, total), done
        )

    write_quantized(out, Source.of(directory), found, tensors, settings)
    return {
        "recipe": found.name,
        **_sizes(out),
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "layers_resumed": len(resumed),
    }


def _samples(
    checkpoint: Checkpoint, recipe: Recipe, calibration: Calibration
) -> tuple[NDArray[np.int32] | None, dict[str, Any] | None]:
    """Token ids [B, T] and what they were made of, for the manifest; None when no pass looks at them."""
    if not needs_data(recipe.passes):
        return None, None
    chosen = asdict(calibration)
    samples = calibration_tokens(checkpoint, **chosen)
    del chosen["text"]  # a path says nothing about its content
    digest = hashlib.sha256(samples.astype("<i4").tobytes()).hexdigest()
    return samples, {"tokens_sha256": digest, **chosen, "length": samples.shape[1]}


def _sizes(out: Path) -> dict[str, Any]:
    """What the quantized model takes, counted from its files."""
    tensors = read_quantized(out).tensors
    read = [name for name in tensors if name != "embed"]
    norms = [name for name in read if name.endswith("_norm")]
    multiplied = [name for name in read if name.rpartition(".")[2].startswith("w")]
    weights = sum(int(np.prod(tensors.shape(name))) for name in multiplied)
    size = sum(tensors.stored_bytes(name) for name in read)
    return {
        "weights": weights,
        "bits_per_weight": 8 * (size - sum(map(tensors.stored_bytes, norms))) / weights,
        "bytes_per_token": size,
        "bytes_on_disk": sum(path.stat().st_size for path in out.iterdir()),
    }
