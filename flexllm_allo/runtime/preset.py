"""Presets: designs as data. A card, a model, a recipe, both stages with their parameters, as TOML.

Those that come with the package are in `schedules/presets`; `flexllm tune` writes more. Every field is
checked: the parameters of a stage are those of its schedule function.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import FlexError, UsageError, did_you_mean
from ..hardware.devices import MAX_MHZ
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop, Mode, hybrid
from ..models import Model
from ..models.engine_model import Decode
from ..models.flexllm_model import Prefill
from ..quant.store.folder import is_quantized
from ..schedule.stage import Stage
from ..schedules import decode, prefill
from .bitstream import (
    Bitstream,
    decode_bitstream,
    flexllm_prefill,
    prefill_bitstream,
    stage_of,
    staged,
    whole,
)
from .storage import Storage, store_arrays
from .words import WORD_ROWS, weight_words

SCHEDULES: Mapping[str, Mapping[str, Callable[..., Stage | Prefill | Decode]]] = {
    "prefill": {
        "spatial": prefill.spatial, "overlapped": prefill.overlapped, "temporal": prefill.temporal,
        "flexllm": Prefill,
    },
    "decode": {
        "temporal": decode.temporal, "overlapped": decode.overlapped, "spatial": decode.spatial,
        "engine": Decode,
    },
}  # fmt: skip
"""The schedules of each stage, by the names of their functions; `flexllm` and `engine` have other kernels."""
ALONE = ("flexllm", "engine")

DEFAULT = "default"
"""The design that is built without a preset."""


class StagePreset(BaseModel):
    """A schedule by name, and its clock if it has another; any other field is a parameter of its function."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, int] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    schedule: str
    clock_mhz: float | None = Field(default=None, gt=0, le=MAX_MHZ)

    @property
    def parameters(self) -> dict[str, int]:
        return dict(self.model_extra or {})


PLAIN = StagePreset(schedule="temporal")


class Preset(BaseModel):
    """A design.

    Attributes:
        name: how commands call it.
        device: the card.
        model: the architecture it was made for; it takes any.
        recipe: the quantization it was made for.
        clock_mhz: that it is to run at.
        mode: where the engines of the stages are (`hybrid.Mode`).
        word_rows: rows of a weight in a memory word.
        uram_depth, lutram_bits: where arrays are (`storage.Storage`).
        max_prompt: tokens of the longest prompt of a prefill by itself; 0 for those of the context.
        prefill, decode: the stages.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    description: str = ""
    device: str
    model: str
    recipe: str
    clock_mhz: float = Field(gt=0, le=MAX_MHZ)
    mode: Mode = "resident"
    word_rows: int = Field(default=WORD_ROWS, ge=1)
    uram_depth: int = Field(default=0, ge=0)
    lutram_bits: int = Field(default=0, ge=0)
    max_prompt: int = Field(default=0, ge=0)
    prefill: StagePreset
    decode: StagePreset

    @property
    def storage(self) -> Storage:
        """Where arrays are."""
        return Storage(self.uram_depth, self.lutram_bits)

    @property
    def bitstreams(self) -> tuple[str, ...]:
        """What takes turns on the card: the stages, or the whole design alone."""
        return ("prefill", "decode") if self.mode == "reconfigured" else ("generate",)

    @property
    def has_own_kernels(self) -> bool:
        """Whether a stage has kernels of its own, and so no program in common with the other."""
        return any(chosen.schedule in ALONE for chosen in (self.prefill, self.decode))

    def clock_of(self, stage: str) -> float:
        """The clock of a stage in MHz."""
        chosen: StagePreset = getattr(self, stage)
        return chosen.clock_mhz or self.clock_mhz

    def recipe_for(self, directory: Path) -> str | None:
        """Its recipe, unless the folder is quantized: that has one."""
        return None if is_quantized(directory) else self.recipe


def get_preset(name: str) -> Preset:
    """The preset of a name, or in a TOML file.

    Raises:
        UsageError: FX703, there is none, or the list of all fields that are unknown or wrong.
    """
    path = Path(name)
    if name in presets():
        return presets()[name]
    if not path.is_file():
        hint = did_you_mean(name, [DEFAULT, *presets()])
        raise UsageError("FX703", f'there is no preset "{name}"', hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FX703", f"cannot read the preset {name}: {error}") from error
    return parse_preset(text, name)


def presets() -> dict[str, Preset]:
    """Those that come with the package, by name."""
    folder = files("flexllm_allo.schedules") / "presets"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    shipped = [parse_preset((folder / entry).read_text("utf-8"), entry) for entry in found]
    return {preset.name: preset for preset in shipped}


def parse_preset(text: str, source: str = "the text") -> Preset:
    """The preset in a TOML text. `source` is its name in messages.

    Raises:
        UsageError: FX703, as `get_preset`.
    """
    try:
        preset = Preset.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError("FX703", f"{source} is not TOML: {error}") from error
    except ValidationError as error:
        problems = [_problem(dict(found)) for found in error.errors()]
    else:
        problems = [*_device_problems(preset), *_stage_problems(preset), *_mode_problems(preset)]
        if not problems:
            return preset
    listing = "".join(f"\n  - {problem}" for problem in problems)
    raise UsageError(
        "FX703",
        f"{source} does not describe a preset:{listing}",
        hint="flexllm tune MODEL --out FILE writes one, every field in it",
    )


def preset_to_toml(preset: Preset) -> str:
    """The preset as TOML; `parse_preset` of it is the preset again."""
    fields: dict[str, Any] = preset.model_dump(exclude_none=True)
    tables = {name: fields.pop(name) for name in SCHEDULES}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def preset_bitstreams(preset: Preset, model: Model) -> dict[str, Bitstream]:
    """The design of a preset for a model, by what is on the card at one time.

    Raises:
        UsageError: FX703, the kernels of the preset do not compute this model.
    """
    for name in SCHEDULES:  # before the work
        _kernels(preset, model, name)
    return {name: preset_bitstream(preset, model, name) for name in preset.bitstreams}


def preset_bitstream(preset: Preset, model: Model, name: str) -> Bitstream:
    """One of `preset_bitstreams`; the other one is not made."""
    if preset.has_own_kernels:
        return _alone(preset, model, name)
    top = preset_top(preset, model)
    return stage_of(top, name) if name in SCHEDULES else whole(top)


def stage_bitstream(preset: Preset, model: Model, name: str) -> Bitstream:
    """One stage of a preset by itself, wherever the stages of the preset are.

    Raises:
        UsageError: FX703, the kernels of the preset do not compute this model.
    """
    if preset.has_own_kernels:
        return _alone(preset, model, name)
    made = preset_stage(name, getattr(preset, name))
    return staged(model, name, made, preset.word_rows, preset.storage)


def _alone(preset: Preset, model: Model, name: str) -> Bitstream:
    """A stage of a preset whose stages have no program in common."""
    made = _kernels(preset, model, name)
    if isinstance(made, Stage):
        if name == "prefill":
            return prefill_bitstream(model, made, preset.word_rows, preset.storage, preset.max_prompt)
        return stage_of(preset_top(preset.model_copy(update={"prefill": PLAIN}), model), name)
    if isinstance(made, Prefill):
        return flexllm_prefill(model, made, preset.storage, preset.max_prompt)
    return decode_bitstream(model, made, preset.storage)


def _kernels(preset: Preset, model: Model, name: str) -> Stage | Prefill | Decode:
    """The schedule of a stage, or its kernels, which compute the model."""
    chosen: StagePreset = getattr(preset, name)
    made = SCHEDULES[name][chosen.schedule](**chosen.parameters)
    if not isinstance(made, Stage):
        made.check(model)
    return made


def preset_top(preset: Preset, model: Model) -> HybridTop:
    """The design of a preset for a model, both stages in one program."""
    first, second = preset_stage("prefill", preset.prefill), preset_stage("decode", preset.decode)
    top = hybrid(model, first, second, weight_words(model, preset.word_rows), preset.mode)
    store_arrays(top.schedule, preset.storage)
    return top


def preset_stage(name: str, chosen: StagePreset) -> Stage:
    """A stage, ``prefill`` or ``decode``, as a preset says."""
    made = SCHEDULES[name][chosen.schedule](**chosen.parameters)
    if not isinstance(made, Stage):
        raise UsageError("FX703", f'{name}.schedule "{chosen.schedule}" has no program in common with others')
    return made


def _problem(error: Mapping[str, Any]) -> str:
    """One line on what pydantic found."""
    *path, last = (str(part) for part in error["loc"])
    at, kind = ".".join((*path, last)), error["type"]
    if kind == "extra_forbidden":
        return f"{at} is unknown: {did_you_mean(last, Preset.model_fields)}"
    if kind == "missing":
        return f"{at} is missing"
    message: str = error["msg"]
    return f"{at} is {error['input']!r}: {message[0].lower()}{message[1:]}"


def _device_problems(preset: Preset) -> Iterator[str]:
    try:
        find_device(preset.device)
    except FlexError as error:
        yield f'device is "{preset.device}": {error.hint}'


def _mode_problems(preset: Preset) -> Iterator[str]:
    for name in SCHEDULES if preset.mode != "reconfigured" else ():
        chosen: StagePreset = getattr(preset, name)
        if chosen.schedule in ALONE:
            yield f'mode is "{preset.mode}": {name}.schedule "{chosen.schedule}" needs "reconfigured"'


def _stage_problems(preset: Preset) -> Iterator[str]:
    """Schedules and parameters that there are not, and numbers no hardware has."""
    for stage, schedules in SCHEDULES.items():
        chosen: StagePreset = getattr(preset, stage)
        if chosen.schedule not in schedules:
            yield f'{stage}.schedule is "{chosen.schedule}": {did_you_mean(chosen.schedule, schedules)}'
            continue
        known = inspect.signature(schedules[chosen.schedule]).parameters
        for name, value in chosen.parameters.items():
            least = {"token_parallel": 2, "cycles": 0, "key": 0, "value": 0}.get(name, 1)
            if name not in known:
                yield f"{stage}.{name} is unknown: {did_you_mean(name, known)}"
            elif name == "macs_per_dsp" and value not in (1, 2, 4):
                yield f"{stage}.{name} is {value}: it can be 1, 2 or 4"
            elif value < least:
                yield f"{stage}.{name} is {value}: at least {least}"


__all__ = [
    "DEFAULT",
    "SCHEDULES",
    "Preset",
    "StagePreset",
    "get_preset",
    "parse_preset",
    "preset_bitstream",
    "preset_bitstreams",
    "preset_stage",
    "preset_to_toml",
    "preset_top",
    "presets",
    "stage_bitstream",
]
