"""From a checkpoint to the folder of a quantized model."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import QuantError
from ..models.calibrate import Calibration, calibration_data
from ..models.hf import load_checkpoint
from ..quant.pipeline import quantize_tensors
from ..quant.recipe_file import recipe_to_dict
from ..quant.recipes import Recipe, get_recipe
from ..quant.store.folder import Source, check_output, read_quantized, write_quantized
from ..quant.store.manifest import MANIFEST, Manifest, read_manifest
from ..quant.store.tensors import Value

Advance = Callable[[int, int | None], None]


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
    samples, settings = calibration_data(checkpoint, found, calibration)
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


def quantized_copy(
    directory: Path,
    out: Path,
    recipe: str | Recipe,
    advance: Advance = lambda _done, _total: None,
) -> Path:
    """The quantized model of a checkpoint in `out`, made now unless it is there already.

    Raises:
        As `quantize_folder`.
    """
    found = get_recipe(recipe) if isinstance(recipe, str) else recipe
    checkpoint = load_checkpoint(directory)
    _, settings = calibration_data(checkpoint, found)
    wanted = Manifest(
        recipe=recipe_to_dict(found), source=dict(Source.of(directory).digests), calibration=settings
    )
    try:
        made = read_manifest(out)
    except QuantError:
        made = None
    if made is None or not made.complete or not made.same_origin(wanted):
        quantize_folder(directory, out, found, advance=advance)
    return out


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
