"""The nearest setting of a preset that fits a card: fewest halvings of what its stages do at once.

An estimate takes a second, and there are thousands of settings. So every parameter is estimated once at its
smallest, what lies between is interpolated, and only settings that should fit are estimated themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from ...errors import FlexError, UsageError
from ...estimate.limits import NOTHING, nearest, total
from ...estimate.need import holds, together
from ...estimate.result import Estimate
from ...estimate.search import Candidate
from ...hardware.devices import Device, Resources
from ...hardware.devices import device as find_device
from ...hybrid import Mode
from ...models import Model
from ..estimate import DESIGNS, estimate_model, estimate_preset, open_model
from ..preset import ALONE, DEFAULT, SCHEDULES, Preset, StagePreset, get_preset
from .candidates import candidate, shared_candidates

OnStep = Callable[[int, int | None], None]
Setting = Mapping[str, int]
"""Parameters of both stages, such as ``prefill.token_parallel``."""

Stages = tuple[str, ...]
"""Some of them."""

GROUPS: Mapping[Mode, Sequence[Stages]] = {
    "resident": [tuple(SCHEDULES)],
    "shared": [("prefill",)],  # whose engines are those of decode too
    "reconfigured": [(name,) for name in SCHEDULES],
}
"""Stages that are on the card together, by where their engines are."""
LENGTH = 64
"""Tokens of the run that stages are estimated for: it does not change what they take."""
ESTIMATES = 24
"""Of stages, at most: some twenty seconds for a model of a billion weights."""
HALVINGS = 4
"""Of a parameter, at most."""
TRIES = 50_000
FIXED = ("macs_per_dsp", "group", "key", "value", "attention_word", "mlp_word")
"""Parameters that say how, not how much at once."""
LEAST = {"token_parallel": 2}


@dataclass(frozen=True, slots=True)
class Near:
    """What a search found.

    Attributes:
        preset: that fits.
        changes: its fields that differ: as asked, and as they are.
        estimate: of it.
    """

    preset: Preset
    changes: Mapping[str, tuple[int | str, int | str]]
    estimate: Estimate

    def __str__(self) -> str:
        changed = ", ".join(f"{name} = {now} (not {asked})" for name, (asked, now) in self.changes.items())
        rate = self.estimate.tokens_per_second
        speed = f": prefill {self.estimate.prefill_s:.3g} s, decode {rate:.3g} tokens/s" if rate else ""
        return f"the nearest setting that fits: {changed}{speed}"


def estimate_advised(
    directory: Path,
    device: str | None = None,
    prompt: int = 1024,
    new_tokens: int = 128,
    *,
    preset: str = DEFAULT,
    clock_mhz: float | None = None,
    recipe: str | None = None,
    max_seq_len: int | None = None,
    estimates: int = ESTIMATES,
    on_step: OnStep = lambda _done, _total: None,
) -> Estimate:
    """As `estimate_model`; of a preset that does not fit its card, with the nearest setting that does.

    Args:
        estimates: of stages, that the search for this setting may make.
        on_step: called with (estimates done by it, None).
    """
    options: Any = {"clock_mhz": clock_mhz, "recipe": recipe, "max_seq_len": max_seq_len}
    found = estimate_model(directory, device, prompt, new_tokens, preset=preset, **options)
    if found.fit or preset in DESIGNS:
        return found
    chosen = get_preset(preset)
    model = open_model(directory, recipe or chosen.recipe_for(directory), prompt, new_tokens, max_seq_len)
    card = find_device(found.device)
    mhz = clock_mhz or (None if card.key == chosen.device else card.default_mhz)
    near = nearest_preset(chosen, model, card, prompt, new_tokens, mhz, estimates, on_step)
    changes = {name: now for name, (_, now) in near.changes.items()} if near else {}
    advice = str(near) if near else f"no setting that fits was found in {estimates} estimates of stages"
    return replace(found, fit=replace(found.fit, advice=advice, nearest=changes))


def nearest_preset(
    preset: Preset,
    model: Model,
    card: Device,
    prompt: int,
    new_tokens: int,
    mhz: float | None = None,
    estimates: int = ESTIMATES,
    on_step: OnStep = lambda _done, _total: None,
) -> Near | None:
    """The nearest setting that fits; None where none was found.

    First with the schedules as they are, then with operators that take turns; then the same with stages that
    take turns on the card.

    Args:
        prompt, new_tokens: lengths of the run that it is estimated for.
        mhz: the clock of both stages; by default that of the preset.
        estimates: of stages, at most.
        on_step: called with (estimates done, None).
    """
    search = _Search(model, card, estimates, on_step)
    plain = preset
    if card.available is not None and not card.available.uram:
        plain = preset.model_copy(update={"uram_depth": 0})
    for mode in dict.fromkeys((preset.mode, "reconfigured")):
        found = search.of_mode(plain.model_copy(update={"mode": mode}))
        if found is None:
            continue
        whole = estimate_preset(found, model, card, prompt, new_tokens, mhz, f"{preset.name}, nearest")
        if whole.fit:
            return Near(found, _changes(preset, found), whole)
    return None


def _temporal(chosen: StagePreset) -> StagePreset:
    return chosen if chosen.schedule in ALONE else chosen.model_copy(update={"schedule": "temporal"})


class _Search:
    """Estimates of stages, remembered."""

    def __init__(self, model: Model, card: Device, estimates: int, on_step: OnStep) -> None:
        self.model, self.card, self.estimates, self.on_step = model, card, estimates, on_step
        self.needs: dict[str, Candidate | None] = {}

    def of_mode(self, preset: Preset) -> Preset | None:
        """The nearest setting of a preset whose stages stay where they are."""
        for on_card in GROUPS[preset.mode]:
            turns = {name: _temporal(getattr(preset, name)) for name in on_card}
            found = self._nearest(preset, on_card)
            found = found or self._nearest(preset.model_copy(update=turns), on_card)
            if found is None:
                return None
            preset = found
        return preset

    def _nearest(self, preset: Preset, on_card: Stages) -> Preset | None:
        """The nearest setting of what is on the card together."""
        asked = {f"{stage}.{name}": n for stage in SCHEDULES for name, n in _of(preset, stage).items()}
        mine = {name: n for name, n in asked.items() if name.startswith(on_card)}
        possible = {
            name: [v for v in _choices(name, n) if _exists(preset, name, v)] for name, n in mine.items()
        }
        choices = {name: values for name, values in possible.items() if len(values) > 1}
        smallest = {name: values[-1] for name, values in choices.items()}
        if self._fits(preset, asked, on_card):
            return preset
        if not self._fits(preset, {**asked, **smallest}, on_card):
            return None
        asked = self._placed(preset, asked, choices, on_card)
        choices = {
            n: values for n, every in choices.items() if len(values := every[every.index(asked[n]) :]) > 1
        }
        smallest = {name: values[-1] for name, values in choices.items()}
        models = {stage: self._interpolated(preset, stage, asked, smallest) for stage in on_card}
        scale = dict.fromkeys(models, (1.0,) * 5)

        def fits(setting: Setting) -> bool:
            guessed = total(_times(guess(setting), scale[name]) for name, guess in models.items())
            if not holds(self.card, guessed):
                return False
            if self._fits(preset, setting, on_card):
                return True
            for stage, guess in models.items():  # what was guessed too low here is so beside it, too
                real = self._need(preset, stage, setting)
                if real is not None:
                    scale[stage] = _ratio(real.resources, guess(setting))
            return False

        found = nearest(asked, choices, fits, TRIES)
        return _with(preset, found) if found else None

    def _placed(
        self, preset: Preset, asked: Setting, choices: Mapping[str, list[int]], on_card: Stages
    ) -> Setting:
        """The setting with as many ports as there is a place for: what has none cannot be estimated."""
        settings = [asked]
        for name, values in choices.items():
            if name.endswith(".ports"):
                settings += [{**asked, name: n} for n in values[1:]]
        for setting in settings:
            if all(self._need(preset, stage, setting) is not None for stage in on_card):
                return setting
        return settings[-1]

    def _interpolated(
        self, preset: Preset, stage: str, asked: Setting, smallest: Setting
    ) -> Callable[[Setting], Resources]:
        """The resources of a stage by its setting: each parameter scales a part of them, as a line."""
        base = self._need(preset, stage, asked)
        known = base.resources if base else NOTHING
        shares: dict[str, tuple[float, ...]] = {}
        for name, least in smallest.items():
            if name.startswith(stage):
                found = self._need(preset, stage, {**asked, name: least})
                shares[name] = _ratio(found.resources, known) if found else (1.0,) * 5

        def guess(setting: Setting) -> Resources:
            factors = [
                [1 + (share - 1) * _way(name, asked[name], setting[name], smallest[name]) for share in ratio]
                for name, ratio in shares.items()
            ]
            return _times(known, tuple(prod(column) for column in zip((1.0,) * 5, *factors, strict=True)))

        return guess

    def _fits(self, preset: Preset, setting: Setting, on_card: Stages) -> bool:
        """Whether a setting fits, by estimates."""
        needs = [need for stage in on_card if (need := self._need(preset, stage, setting))]
        return len(needs) == len(on_card) and holds(self.card, together(needs))

    def _need(self, preset: Preset, stage: str, setting: Setting) -> Candidate | None:
        """What a stage takes; None if there is no such design or no place for its arrays, or none is left."""
        chosen = _with(preset, setting)
        key = f"{stage} {chosen.storage} {chosen if chosen.mode == 'shared' else getattr(chosen, stage)}"
        if key not in self.needs:
            if len(self.needs) >= self.estimates:
                return None
            self.needs[key] = self._estimated(chosen, stage)
            self.on_step(len(self.needs), None)
        return self.needs[key]

    def _estimated(self, preset: Preset, stage: str) -> Candidate | None:
        card, mhz = self.card, preset.clock_of(stage)
        scalars = {"n_prompt": LENGTH} if stage == "prefill" else {"pos": LENGTH}
        try:
            if preset.mode == "shared":
                return shared_candidates(preset, self.model, card, mhz, LENGTH, LENGTH, placed=True)[0]
            return candidate(preset, self.model, stage, card, mhz, scalars, placed=True)
        except FlexError:
            return None


def _of(preset: Preset, stage: str) -> dict[str, int]:
    chosen: StagePreset = getattr(preset, stage)
    return chosen.parameters


def _choices(name: str, value: int) -> list[int]:
    """The values that a parameter may have, from the one it has to that of the smallest design."""
    parameter = name.partition(".")[2]
    if parameter in FIXED:
        return []
    if parameter == "cycles":  # that a layer may take: the more, the fewer multipliers
        return [value << n for n in range(HALVINGS)] if value else []
    found = [value]
    while len(found) <= HALVINGS and found[-1] % 2 == 0 and found[-1] // 2 >= LEAST.get(parameter, 1):
        found.append(found[-1] // 2)
    return found


def _exists(preset: Preset, name: str, value: int) -> bool:
    """Whether the schedule of a stage takes a value beside its other parameters."""
    stage, _, parameter = name.partition(".")
    chosen: StagePreset = getattr(preset, stage)
    try:
        SCHEDULES[stage][chosen.schedule](**{**chosen.parameters, parameter: value})
    except UsageError:
        return False
    return True


def _way(name: str, asked: int, value: int, least: int) -> float:
    """How far a parameter is on its way from what was asked (0) to its smallest (1)."""
    a, b, c = (1 / n if name.endswith(".cycles") else n for n in (asked, value, least))
    return (a - b) / (a - c)


def _with(preset: Preset, setting: Setting) -> Preset:
    """The preset with other parameters."""
    update: dict[str, StagePreset] = {}
    for stage in SCHEDULES:
        chosen: StagePreset = getattr(preset, stage)
        own = {name.partition(".")[2]: n for name, n in setting.items() if name.startswith(f"{stage}.")}
        update[stage] = StagePreset(schedule=chosen.schedule, clock_mhz=chosen.clock_mhz, **own)
    return preset.model_copy(update=update)


def _changes(asked: Preset, found: Preset) -> dict[str, tuple[int | str, int | str]]:
    """Fields that differ."""
    pairs: dict[str, tuple[int | str, int | str]] = {
        name: (getattr(asked, name), getattr(found, name)) for name in ("mode", "uram_depth")
    }
    for stage in SCHEDULES:
        before: StagePreset = getattr(asked, stage)
        after: StagePreset = getattr(found, stage)
        pairs[f"{stage}.schedule"] = before.schedule, after.schedule
        pairs |= {f"{stage}.{n}": (v, after.parameters[n]) for n, v in before.parameters.items()}
    return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def _ratio(a: Resources, b: Resources) -> tuple[float, ...]:
    return tuple(x / y if y else 1.0 for x, y in zip(a.counts(), b.counts(), strict=True))


def _times(a: Resources, factors: tuple[float, ...]) -> Resources:
    return Resources(*(round(n * factor) for n, factor in zip(a.counts(), factors, strict=True)))


__all__ = ["Near", "estimate_advised", "nearest_preset"]
