"""The signal-to-noise report of a checkpoint under a recipe, or of a folder that `flexllm quantize` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError, UsageError
from ..models.calibrate import Calibration, calibration_data
from ..models.hf import Checkpoint, load_checkpoint
from ..quant.advice import repaired, suggestions
from ..quant.calibration import Samples, calibration_samples
from ..quant.layers import round_tensors
from ..quant.model import FloatModel, Tensor
from ..quant.names import EMBED, tensor_name
from ..quant.passes import Awq, Rotate, Smooth, needs_data
from ..quant.perplexity import text_sha256
from ..quant.pipeline import checked_samples
from ..quant.recipes import DEFAULT_RECIPE, Recipe, get_recipe
from ..quant.snr import SnrReport, measure_snr
from ..quant.store.folder import Source, is_quantized, read_quantized
from ..quant.store.manifest import read_manifest
from ..quant.store.tensors import StoredTensors
from ..quant.transform.float_passes import apply_float_passes
from ..report.snr import place_name, snr_dict, snr_page

LENGTH = 256
"""Tokens in a window, BOS included, unless the text or the model's context is shorter."""
HELD_OUT = Path(__file__).parent.parent / "models" / "tiny" / "heldout.txt"
"""English technical prose, disjoint from the calibration text."""

Advance = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Report:
    """What `report_snr` gives.

    Attributes:
        page: HTML, complete in itself.
        content: the same as data, for JSON.
        summary: the main figures in words.
        advice: what to change, with the lines of the recipe; empty if all is well.
    """

    page: str
    content: dict[str, Any]
    summary: dict[str, str]
    advice: str


@dataclass(frozen=True)
class _Subject:
    """What is compared: the model behind the float passes, and the tensors that came of it."""

    checkpoint: Checkpoint
    recipe: Recipe
    model: FloatModel
    tensors: Iterable[tuple[str, Tensor]]
    calibration: dict[str, Any] | None


def report_snr(
    directory: Path,
    recipe: str | Recipe | None = None,
    text: str | None = None,
    *,
    float_directory: Path | None = None,
    calibration: Path | None = None,
    samples: int = 8,
    seed: int = 0,
    advance: Advance = lambda _done, _total: None,
) -> Report:
    """Measure where a quantized model loses its signal, and say what to change.

    Args:
        directory: a Hugging Face folder, or one that `flexllm quantize` wrote.
        recipe: a recipe, its name or a ``.toml`` file; by default w8a8kv8, or what the folder has.
        text: what the models read; by default the held-out text that ships with the package.
        float_directory: the float model, needed for a quantized folder, which does not hold it.
        calibration: text for recipes that look at activations; for a folder, what quantize was given.
        samples: windows of the text, fewer if it is short.
        seed: of the choice of windows.
        advance: called with (steps done, steps in all).

    Raises:
        ModelError: FX601 to FX605, a checkpoint cannot be used.
        QuantError: FX604, recipe or float model do not fit; FX606 to FX608.
        UsageError: FX703, no float model was given or the text has nothing to predict.
    """
    content = HELD_OUT.read_text(encoding="utf-8") if text is None else text
    found = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if is_quantized(directory):
        subject = _stored(directory, found, float_directory, calibration)
    elif float_directory is not None:
        raise UsageError(
            "FX703",
            f'"{directory}" is a float model itself',
            hint="leave --float out, or name a folder that flexllm quantize wrote first",
        )
    else:
        subject = _quantized_now(directory, found or get_recipe(DEFAULT_RECIPE), calibration, advance)
    windows = _windows(subject.checkpoint, content, samples, seed)
    measured = measure_snr(subject.model, subject.recipe, subject.tensors, windows)
    settings = {
        "model": directory.resolve().name,
        "text_sha256": text_sha256(content),
        "windows": len(windows),
        "length": windows.shape[1],
        "seed": seed,
        "dtype": "float32, values rounded as the integer kernels round them",
        "calibration": subject.calibration,
    }
    return _finished(measured, subject.checkpoint, settings)


def _finished(measured: SnrReport, checkpoint: Checkpoint, settings: dict[str, Any]) -> Report:
    advice = suggestions(measured, checkpoint.config)
    words = {key: _plain(value) for key, value in settings.items()}
    page = snr_page(measured, advice, repaired(measured, checkpoint.config), words)
    content = snr_dict(measured, advice, settings)
    first, out = measured.first_bad(), measured.output
    summary = {
        "recipe": measured.recipe.name,
        "perplexity": f"{out.perplexity:.4f} (float {out.perplexity_float:.4f})",
        "KL divergence": f"{out.kl:.4f} nats",
        "first bad place": "none"
        if first is None
        else f"{place_name(first.layer, first.place)}: {first.snr:.1f} dB",
    }
    told = "\n".join(f"{s.reason}\n{s.action}\n\n{s.toml}" for s in advice)
    return Report(page, content, summary, told)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in cast("dict[str, Any]", value).items())
    return str(value)


def _quantized_now(directory: Path, recipe: Recipe, calibration: Path | None, advance: Advance) -> _Subject:
    """A float model, quantized layer by layer while the report asks for its tensors."""
    checkpoint = load_checkpoint(directory)
    chosen = Calibration() if calibration is None else Calibration(calibration)
    samples, settings = calibration_data(checkpoint, recipe, chosen)
    data = checked_samples(checkpoint, recipe, samples)
    model = apply_float_passes(checkpoint, recipe, data)
    tensors = round_tensors(model, recipe, data, lambda _name, done, total: advance(done, total))
    return _Subject(checkpoint, recipe, model, tensors, settings)


def _stored(
    directory: Path, recipe: Recipe | None, float_directory: Path | None, calibration: Path | None
) -> _Subject:
    """A quantized folder, and the float model it was made of, taken through the same passes again."""
    stored, manifest = read_quantized(directory), read_manifest(directory)
    if recipe is not None and recipe != stored.recipe:
        raise QuantError(
            "FX604",
            f"{directory} is quantized with recipe {stored.recipe.name!r}, not {recipe.name!r}",
            hint="leave the recipe out, or name the float model",
        )
    if float_directory is None:
        raise UsageError(
            "FX703",
            f'"{directory}" does not hold the float model that the report compares with',
            hint="add --float DIR, the folder that flexllm quantize was given",
        )
    checkpoint = load_checkpoint(float_directory)
    digests = Source.of(float_directory).digests
    differing = [
        n for n in manifest.source if n.endswith(".safetensors") and digests.get(n) != manifest.source[n]
    ]
    if differing:
        raise QuantError(
            "FX604",
            f'"{directory}" was not quantized from "{float_directory}": {differing[0]} differs',
            hint="name the folder that flexllm quantize was given",
        )
    data = _same_samples(checkpoint, stored.recipe, manifest.calibration or {}, calibration)
    model = apply_float_passes(checkpoint, stored.recipe, data)
    _check_same(directory, model, stored.tensors)
    return _Subject(checkpoint, stored.recipe, model, stored.tensors.items(), manifest.calibration)


def _same_samples(
    checkpoint: Checkpoint, recipe: Recipe, settings: dict[str, Any], calibration: Path | None
) -> Samples | None:
    """The samples that the float passes looked at, if any pass does."""
    if not needs_data([p for p in recipe.passes if isinstance(p, Smooth | Awq | Rotate)]):
        return None
    chosen = Calibration(calibration, settings["samples"], settings["length"], settings["seed"])
    samples, found = calibration_data(checkpoint, recipe, chosen)
    if found != settings:
        raise QuantError(
            "FX607",
            "this is not the calibration text that the folder was quantized with",
            hint="give --calibration as to flexllm quantize",
        )
    return checked_samples(checkpoint, recipe, samples)


def _check_same(directory: Path, model: FloatModel, tensors: StoredTensors) -> None:
    """Refuse a model whose float passes came out differently, as learned rotations may on another machine."""
    pairs = [("embed", EMBED)] + [
        (f"layers.{layer}.{kind}", tensor_name(kind, layer))
        for layer in range(model.config.num_hidden_layers)
        for kind in ("attn_norm", "mlp_norm")
    ]
    for name, source in pairs:
        kept: NDArray[Any] = np.asarray(tensors[name])
        again = model.tensors[source]
        if not np.allclose(kept, again, rtol=1e-4, atol=1e-4 * float(np.abs(kept).max())):
            raise QuantError(
                "FX604",
                f"{directory}: {name} is not what the recipe makes of the float model here",
                hint="learned rotations depend on torch; report on the float model with --recipe instead",
            )


def _windows(checkpoint: Checkpoint, text: str, samples: int, seed: int) -> Samples:
    """Up to that many windows of a text, at least one however short it is."""
    tokens, bos = checkpoint.encode(text), checkpoint.config.bos_token_id
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    lead = bos is not None
    if len(tokens) + lead < 2:
        raise UsageError(
            "FX703", f"a text of {len(tokens)} tokens has no token to predict", hint="give more text"
        )
    length = min(LENGTH, checkpoint.config.max_position_embeddings, len(tokens) + lead)
    fitting = len(tokens) // (length - lead)
    return calibration_samples(tokens, bos, min(samples, fitting), length, seed)
