"""What to change in a recipe where a report finds noise: a rule for each cause, each with its TOML lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import QuantError
from ..paley import hadamard_base
from .formats import INT8_KV, INT8_WEIGHT, FloatFormat, IntFormat, ProgressiveFormat, WeightFormat
from .model import Shape
from .passes import ORDER, Awq, FoldNorms, Gptq, LowRank, Outliers, Pass, Rotate, Smooth, StaticScales
from .recipe_file import recipe_changes
from .recipes import SITES, Recipe
from .snr import Measurement, SnrReport

PEAK_FACTOR = 1.5
"""Values stick out if their peak (`Measurement.peak`) is this many times sqrt(2 ln n), about where the
largest of n Gaussian values lies: a rotation, smoothing or groups then have something to gain."""
GROUPS = (128, 64, 32, 16)
_LINEAR = tuple(kind for site, kinds in SITES.items() if site != "head" for kind in kinds)


@dataclass(frozen=True)
class Suggestion:
    """One change of the recipe.

    Attributes:
        cause: ``hidden`` (inputs of attention, MLP and head), ``out``, ``down``, ``weights``, ``keys``
            (queries and keys), ``values`` (values and probabilities).
        measurements: the bad places it is for.
        reason: what is wrong, a sentence.
        action: what to do, a sentence.
        recipe: the recipe with this change.
        toml: the lines that change.
    """

    cause: str
    measurements: tuple[Measurement, ...]
    reason: str
    action: str
    recipe: Recipe
    toml: str


@dataclass(frozen=True)
class _Change:
    reason: str
    action: str
    recipe: Recipe


Rule = Callable[[Recipe, Shape, Sequence[Measurement]], _Change | None]


def suggestions(report: SnrReport, config: Shape) -> tuple[Suggestion, ...]:
    """Changes for all bad places of a report, the cause that shows first in the model first.

    A residual stream that is bad although no place is: the noise of good places adds up, and the worst place
    up to that layer is the one to improve.
    """
    found: list[Suggestion] = []
    for cause, members in _causes(report).items():
        change = _RULES[cause](report.recipe, config, members)
        if change is not None and change.recipe != report.recipe:
            lines = recipe_changes(report.recipe, change.recipe)
            found.append(Suggestion(cause, members, change.reason, change.action, change.recipe, lines))
    return tuple(found)


def repaired(report: SnrReport, config: Shape) -> Recipe:
    """The recipe with all changes at once; measure it again, for some causes only show without others."""
    recipe = report.recipe
    for cause, members in _causes(report).items():
        change = _RULES[cause](recipe, config, members)
        recipe = change.recipe if change else recipe
    return recipe if recipe == report.recipe else replace(recipe, name=f"{recipe.name}-repaired")


def sticks_out(peak: float | None, count: int) -> bool:
    """Whether a peak over `count` values is far above that of Gaussian ones."""
    return peak is not None and peak > PEAK_FACTOR * math.sqrt(2 * math.log(max(count, 2)))


def _causes(report: SnrReport) -> dict[str, tuple[Measurement, ...]]:
    """Bad places by cause."""
    found: dict[str, list[Measurement]] = {}
    for m in _to_blame(report):
        found.setdefault(_CAUSE.get(m.place, "weights"), []).append(m)
    return {cause: tuple(members) for cause, members in found.items()}


def _to_blame(report: SnrReport) -> Iterator[Measurement]:
    bad = report.bad()
    local = [m for m in bad if m.place != "stream"]
    if bad and not local:
        before = report.measurements[: report.measurements.index(bad[0])]
        local = [min((m for m in before if m.place not in ("stream", "attention")), key=lambda m: m.snr)]
    for m in local:
        inside = [report.at(m.layer, name) for name in "qkvp"] if m.place == "attention" else [m]
        worst = min(inside, key=lambda one: one.snr)
        if m is worst or worst not in local:
            yield worst


# ------------------------------------------------------------------------------------------- activations


def _hidden(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    if not _outliers(members, config.hidden_size):
        return _more_activation_bits(recipe, members)
    rotate = recipe.find(Rotate)
    reason = _peaks("the hidden state has channels that stick out", members)
    if rotate is None or rotate.r1 == "none":
        return _Change(
            reason,
            "Rotate the residual stream (R1): the weights absorb it, nothing is computed online.",
            _rotated(recipe, r1="hadamard"),
        )
    if not (recipe.find(Smooth) or recipe.find(Awq)) and any(m.place != "head" for m in members):
        action = "Smooth them before the rotation: the weights behind the norms take over part of the range."
        return _Change(reason, action, _with(recipe, Smooth()))
    return _keep_channels(reason, recipe) or _more_activation_bits(recipe, members)


def _out(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    width = config.num_attention_heads * config.head_dim
    if not _outliers(members, width):
        return _more_activation_bits(recipe, members)
    rotate = recipe.find(Rotate)
    reason = _peaks("the result of attention has channels that stick out", members)
    if rotate is None or rotate.r2 == "none":
        action = "Rotate every value head (R2): v_proj and o_proj absorb the rotation."
        return _Change(reason, action, _rotated(recipe, r2="hadamard"))
    if not rotate.out and _has_hadamard(width):
        action = "Rotate across heads in front of o_proj (out): one more Hadamard transform computed online."
        return _Change(reason, action, _rotated(recipe, out=True))
    return _keep_channels(reason, recipe) or _more_activation_bits(recipe, members)


def _down(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    if not _outliers(members, config.intermediate_size):
        return _more_activation_bits(recipe, members)
    rotate = recipe.find(Rotate)
    reason = _peaks("the products inside the MLP have channels that stick out", members)
    if (rotate is None or not rotate.r4) and _has_hadamard(config.intermediate_size):
        action = "Rotate the input of down_proj (R4): a Hadamard transform computed online."
        return _Change(reason, action, _rotated(recipe, r4=True))
    return _keep_channels(reason, recipe) or _more_activation_bits(recipe, members)


def _keep_channels(reason: str, recipe: Recipe) -> _Change | None:
    if recipe.find(Outliers):
        return None
    action = "Keep the largest input channels of every linear layer in float (LLM.int8)."
    return _Change(reason, action, _with(recipe, Outliers()))


def _more_activation_bits(recipe: Recipe, members: Sequence[Measurement]) -> _Change | None:
    fmt = recipe.activation
    if not isinstance(fmt, IntFormat):
        return None
    bits = f"{fmt.bits} bits"
    reason = f"{_named(members)}: no channel sticks out that could be moved, {bits} are too few."
    if fmt.bits < 8:
        wider = replace(fmt, bits=min(8, 2 * fmt.bits))
        return _Change(reason, f"Give activations {wider.bits} bits.", replace(recipe, activation=wider))
    action = "Leave activations in half precision."
    return _Change(reason, action, replace(recipe, activation=FloatFormat(16)))


# ----------------------------------------------------------------------------------------------- weights


def _weights(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    kinds = list(dict.fromkeys(m.place for m in members))
    reduced = {m.layer for m in members if m.layer in recipe.layer_bits}
    if reduced:
        layers = ", ".join(map(str, sorted(n for n in reduced if n is not None)))
        kept = {layer: bits for layer, bits in recipe.layer_bits.items() if layer not in reduced}
        return _Change(
            f"{_named(members)}: layer_bits gives layer {layers} fewer bits than the others.",
            "Give these layers all bits of the format.",
            replace(recipe, layer_bits=kept),
        )
    formats = {kind: fmt for kind in kinds if (fmt := recipe.weight_of(kind)) is not None}
    sticking = [m for m in members if sticks_out(m.peak, _width(m.place, config))]
    grouped = {kind: wide for kind, fmt in formats.items() if (wide := _grouped(fmt, _width(kind, config)))}
    if sticking and grouped:
        action = "Give neighbours in a row scales of their own (groups)."
        return _Change(
            _peaks("a few weights set the scale of their rows", sticking),
            action,
            _with_formats(recipe, grouped),
        )
    reason = f"{_named(members)}: rounding these weights is too coarse."
    two_levels = any(isinstance(f, ProgressiveFormat) for f in (recipe.weight, *recipe.kinds.values()))
    if not recipe.find(Gptq) and not two_levels:
        action = "Round with GPTQ: each column makes up for the error of those before it."
        return _Change(reason, action, _with(recipe, Gptq()))
    wider = {kind: _wider(fmt) for kind, fmt in formats.items() if fmt.bits < 8}
    if wider:
        action = f"Give {', '.join(wider)} more bits."
        return _Change(reason, action, _with_formats(recipe, wider))
    if not recipe.find(LowRank):
        action = "Add the strongest directions of the error back in float (LowRank)."
        return _Change(reason, action, _with(recipe, LowRank()))
    return None


def _wider(fmt: WeightFormat) -> WeightFormat:
    if isinstance(fmt, ProgressiveFormat):
        return INT8_WEIGHT  # its protective range is made for 4 bits
    return replace(fmt, bits=min(8, 2 * fmt.bits))


def _grouped(fmt: WeightFormat, width: int) -> WeightFormat | None:
    """The format with groups that divide a row, if it has none yet."""
    if isinstance(fmt, ProgressiveFormat) or fmt.granularity == "per_group":
        return None
    group = next((g for g in GROUPS if g < width and width % g == 0), None)
    return replace(fmt, granularity="per_group", group=group) if group else None


def _with_formats(recipe: Recipe, formats: dict[str, WeightFormat]) -> Recipe:
    """The recipe with formats of single kinds; of `weight` where all kinds get the same."""
    formats = dict(formats)
    if "w_head" in formats:
        recipe = replace(recipe, head=formats.pop("w_head"))
    if set(formats) == set(_LINEAR) and len(set(formats.values())) == 1:
        return replace(recipe, weight=formats["wq"], kinds={})
    return replace(recipe, kinds={**recipe.kinds, **formats})


def _width(kind: str, config: Shape) -> int:
    """Weights in a row."""
    widths = {"wo": config.num_attention_heads * config.head_dim, "w_down": config.intermediate_size}
    return widths.get(kind, config.hidden_size)


# --------------------------------------------------------------------------------------------- attention


def _keys(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    rotate = recipe.find(Rotate)
    turned = rotate is not None and rotate.r3
    if not turned and _outliers(members, config.head_dim) and _has_hadamard(config.head_dim):
        return _Change(
            _peaks("queries and keys have channels that stick out", members),
            "Rotate both after the rotary embedding (R3): a Hadamard transform per head, computed online.",
            _rotated(recipe, r3=True),
        )
    return _more_cache_bits(recipe, members)


def _values(recipe: Recipe, config: Shape, members: Sequence[Measurement]) -> _Change | None:
    rotate = recipe.find(Rotate)
    if (rotate is None or rotate.r2 == "none") and _outliers(members, config.head_dim):
        return _Change(
            _peaks("values have channels that stick out", members),
            "Rotate every value head (R2): v_proj and o_proj absorb the rotation.",
            _rotated(recipe, r2="hadamard"),
        )
    return _more_cache_bits(recipe, members)


def _more_cache_bits(recipe: Recipe, members: Sequence[Measurement]) -> _Change | None:
    if recipe.kv is None:
        return None
    without = replace(recipe, passes=tuple(p for p in recipe.passes if not isinstance(p, StaticScales)))
    if not recipe.kv.dynamic:
        reason = f"{_named(members)}: scales fixed by the calibration text do not fit this one."
        return _Change(reason, "Compute scales per token and head.", replace(without, kv=INT8_KV))
    reason = f"{_named(members)}: {recipe.kv.bits} bits are too few."
    if recipe.kv.bits < 8:
        return _Change(reason, "Keep keys and values in 8 bits.", replace(without, kv=INT8_KV))
    return _Change(reason, "Leave attention in float.", replace(without, kv=None))


# ----------------------------------------------------------------------------------------------- helpers

_CAUSE = {
    "attn": "hidden", "mlp": "hidden", "head": "hidden", "out": "out", "down": "down",
    "q": "keys", "k": "keys", "v": "values", "p": "values",
}  # fmt: skip
_RULES: dict[str, Rule] = {
    "hidden": _hidden,
    "out": _out,
    "down": _down,
    "weights": _weights,
    "keys": _keys,
    "values": _values,
}


def _outliers(members: Sequence[Measurement], count: int) -> bool:
    return any(sticks_out(m.peak, count) for m in members)


def _has_hadamard(size: int) -> bool:
    try:
        hadamard_base(size)
    except QuantError:
        return False
    return True


def _with(recipe: Recipe, new: Pass) -> Recipe:
    """The recipe with a pass in its place, instead of an alternative."""
    step = {kind: n for n, kinds in enumerate(ORDER) for kind in kinds}
    passes = [p for p in recipe.passes if step[type(p)] != step[type(new)]]
    return replace(recipe, passes=tuple(sorted([*passes, new], key=lambda p: step[type(p)])))


def _rotated(recipe: Recipe, **turn: str | bool) -> Recipe:
    """The recipe with one more rotation, and the norms folded for it."""
    rotate = recipe.find(Rotate) or Rotate("none", "none", r4=False)
    return _with(_with(recipe, FoldNorms()), replace(rotate, **turn))


def _named(members: Sequence[Measurement]) -> str:
    """Where, and how bad at worst."""
    places = ", ".join(dict.fromkeys(m.place for m in members))
    layers = list(dict.fromkeys(m.layer for m in members if m.layer is not None))
    of = f" of layer{'s' if len(layers) > 1 else ''} {_ranges(layers)}" if layers else ""
    return f"{places}{of}, {min(m.snr for m in members):.1f} dB at worst"


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as ``0-2, 5``."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _peaks(what: str, members: Sequence[Measurement]) -> str:
    peak = max(m.peak or 0.0 for m in members)
    return f"{_named(members)}: {what} (peak {peak:.1f} times the root mean square)."
