"""The shape of a model as data: Hugging Face's config.json, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flexllm_allo.errors import ModelError
from flexllm_allo.quant.architecture import Architecture

from .families import FAMILIES, LLAMA
from .family import Family

Count = Annotated[int, Field(strict=True, gt=0)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
TokenId = Annotated[int, Field(strict=True, ge=0)]

ROPE_TYPES = ("default", "llama3")


class Llama3Rope(BaseModel):
    """Llama 3.1's stretched rotary frequencies (`rope_type` "llama3"), Hugging Face's field names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Count


class LlamaConfig(BaseModel):
    """Shape and constants of a model, under the field names of Hugging Face's Llama.

    Fields that a config.json may leave out have Hugging Face's defaults. `from_dict` reads the
    dictionary of a config.json in the spelling of transformers 4 or 5, of any of `families.FAMILIES`:
    what another family calls differently has Llama's name here (`rms_norm_eps` is also LayerNorm's).
    `sliding_window` counts the tokens that a token sees, itself included; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: str = "llama"
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    max_position_embeddings: Count = 2048
    rms_norm_eps: Positive = 1e-6
    rope_theta: Positive = 10000.0
    rope_scaling: Llama3Rope | None = None
    tie_word_embeddings: Annotated[bool, Field(strict=True)] = False
    hidden_act: Literal["silu", "gelu_new"] = "silu"
    sliding_window: Count | None = None
    bos_token_id: TokenId | None = 1
    eos_token_id: TokenId | tuple[TokenId, ...] | None = 2

    @property
    def family(self) -> Family:
        """The family of the model."""
        return FAMILIES[self.model_type]

    @property
    def architecture(self) -> Architecture:
        """What its layers are made of."""
        return self.family.layer

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text; empty when the checkpoint names none."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Hugging Face's defaults that follow from other fields."""
        if not isinstance(data, Mapping):
            return data
        given = {key: value for key, value in cast("Mapping[str, Any]", data).items()}
        heads, hidden = given.get("num_attention_heads"), given.get("hidden_size")
        for name in ("num_key_value_heads", "head_dim"):
            if given.get(name) is None:
                given.pop(name, None)
        if heads is not None:
            given.setdefault("num_key_value_heads", heads)
        if _is_count(heads) and _is_count(hidden) and hidden % heads == 0:
            given.setdefault("head_dim", hidden // heads)
        return given

    @model_validator(mode="after")
    def _relate(self) -> LlamaConfig:
        problems = _relations(self.model_dump())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], source: str = "the configuration") -> LlamaConfig:
        """The configuration in the dictionary of a config.json.

        Args:
            raw: the dictionary, with `rope_scaling` (transformers 4) or `rope_parameters` (5).
            source: where it comes from, for the message.

        Raises:
            ModelError: FX603, naming every field that is missing, wrong or not supported.
        """
        problems = _architecture_problems(raw)
        family = FAMILIES.get(str(raw.get("model_type")), LLAMA)
        fields, rope_problems = _normalise_rope(_renamed(raw, family))
        problems += rope_problems + _activation_problems(fields, family)
        window, window_problems = _window(fields, family)
        problems += window_problems
        # Values reported above are replaced, so that the checks below do not report them again.
        activation = family.activations[0]
        fields |= {"model_type": family.model_type, "hidden_act": activation, "sliding_window": window}
        config: LlamaConfig | None = None
        try:
            config = cls.model_validate(fields)
        except ValidationError as error:
            found = (_field_problem(e["loc"], e["msg"], e["input"], fields) for e in error.errors())
            problems += [*filter(None, found), *_relations(fields)]
        if config is None or problems:
            listing = "".join(f"\n  - {_theirs(problem, family)}" for problem in dict.fromkeys(problems))
            names = ", ".join(family.architecture for family in FAMILIES.values())
            raise ModelError(
                "FX603",
                f"{source} does not describe a model that can be built:{listing}",
                hint=f"supported are checkpoints of {names}, with rope types {' or '.join(ROPE_TYPES)}",
            )
        return config


def rope_tables(config: LlamaConfig, max_seq_len: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of the rotary embedding, float32 [max_seq_len, head_dim / 2].

    Entry [p, i] belongs to position p and the pair (i, i + head_dim / 2). The frequencies are computed in
    float32 in the order of transformers' `modeling_rope_utils`. Where positions are learned, nothing is
    rotated: ones and zeros.
    """
    if config.architecture.positions == "learned":
        shape = (max_seq_len, config.head_dim // 2)
        return np.ones(shape, np.float32), np.zeros(shape, np.float32)
    one = np.float32(1)
    exponent = np.arange(0, config.head_dim, 2).astype(np.float32) / np.float32(config.head_dim)
    # The power in double precision, rounded once: NumPy's float32 power is an ulp off here and there.
    frequency = one / np.power(config.rope_theta, exponent.astype(np.float64)).astype(np.float32)
    if config.rope_scaling is not None:
        frequency = _stretch(frequency, config.rope_scaling)
    angle = np.arange(max_seq_len, dtype=np.float32)[:, None] * frequency[None, :]
    wide = angle.astype(np.float64)
    return np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)


def _stretch(frequency: NDArray[np.float32], rope: Llama3Rope) -> NDArray[np.float32]:
    """Llama 3.1: long wavelengths are stretched by `factor`, the middle ones interpolated."""
    one, factor = np.float32(1), np.float32(rope.factor)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    context = rope.original_max_position_embeddings
    wavelength = np.float32(2 * math.pi) / frequency
    is_long = wavelength > np.float32(context / low)
    is_short = wavelength < np.float32(context / high)
    smooth = (np.float32(context) / wavelength - np.float32(low)) / np.float32(high - low)
    middle = (one - smooth) * frequency / factor + smooth * frequency
    return np.where(is_long, frequency / factor, np.where(is_short, frequency, middle)).astype(np.float32)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _field_problem(loc: tuple[int | str, ...], message: str, found: Any, fields: Mapping[str, Any]) -> str:
    """One line on a field that is wrong by itself; empty when it follows from another one's absence."""
    # pydantic adds the member of a union that was tried; only names of fields mean something to the user.
    name = ".".join(part for part in loc if isinstance(part, str) and part.isidentifier())
    if not name:  # from `_relate`, whose problems are reported with the others
        return ""
    if message != "Field required":
        return f"{name} is {found!r}: {message[0].lower()}{message[1:]}"
    if name not in ("head_dim", "num_key_value_heads"):
        return f"{name} is missing"
    if name == "head_dim" and all(_is_count(fields.get(k)) for k in ("num_attention_heads", "hidden_size")):
        return "head_dim is missing, and hidden_size is not a multiple of num_attention_heads"
    return ""


def _architecture_problems(raw: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    model_type = raw.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        problems.append(f"model_type is {model_type!r}; supported: {', '.join(FAMILIES)}")
    architectures = raw.get("architectures")
    if architectures is not None:
        names = cast("list[Any]", architectures) if isinstance(architectures, list) else [architectures]
        wanted = [f.architecture for f in ([family] if family else FAMILIES.values())]
        if not any(name in wanted for name in names):
            problems.append(f"architectures is {architectures!r}; supported: {', '.join(wanted)}")
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        problems.append(f"partial_rotary_factor is {raw['partial_rotary_factor']!r}; supported: 1.0")
    if raw.get("quantization_config") is not None:
        problems.append(
            "quantization_config is set, the weights are already quantised; "
            "take the original float checkpoint, the recipe quantises it"
        )
    return problems


def _renamed(raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The fields under Llama's names, with the family's defaults for those that are missing."""
    ours = {theirs: name for name, theirs in family.fields.items()}
    given = {ours.get(name, name): value for name, value in raw.items()}
    fields = {**family.defaults, **given}
    hidden = fields.get("hidden_size")
    if family.layer.mlp == "gelu" and fields.get("intermediate_size") is None and _is_count(hidden):
        fields["intermediate_size"] = 4 * hidden
    return fields


def _theirs(problem: str, family: Family) -> str:
    """A line of the list of problems with the family's names of fields."""
    for ours, theirs in family.fields.items():
        problem = re.sub(rf"\b{ours}\b", theirs, problem)
    return problem


def _activation_problems(fields: Mapping[str, Any], family: Family) -> list[str]:
    problems: list[str] = []
    activation = fields.get("hidden_act", "silu")
    if activation not in family.activations:
        problems.append(f"hidden_act is {activation!r}; supported: {', '.join(family.activations)}")
    for name, value in family.fixed.items():
        if fields.get(name) not in (None, value):
            problems.append(f"{name} is {fields[name]!r}; supported for {family.model_type}: {value}")
    return problems


def _window(fields: Mapping[str, Any], family: Family) -> tuple[Any, list[str]]:
    """``sliding_window`` where it counts, and what is wrong with it: all layers must see as far."""
    window = fields.get("sliding_window", 4096)
    if family.window == "never" or (family.window == "flag" and not fields.get("use_sliding_window")):
        return None, []
    if family.window == "always" or window is None:
        return window, []
    layers, full = fields.get("num_hidden_layers"), fields.get("max_window_layers", 28)
    kinds = fields.get("layer_types")
    if kinds is None and _is_count(layers) and isinstance(full, int):
        kinds = ["sliding_attention" if i >= full else "full_attention" for i in range(layers)]
    found = set(cast("list[str]", kinds)) if isinstance(kinds, list) else set[str]()
    if found == {"full_attention"}:
        return None, []
    if found != {"sliding_attention"}:
        return None, ["layer_types (or max_window_layers) gives only some layers a sliding window"]
    return window, []


def _normalise_rope(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields with `rope_theta` and `rope_scaling` in one spelling, and what is wrong with them.

    transformers 5 writes `rope_parameters` with `rope_theta` inside; transformers 4 writes `rope_theta`
    beside `rope_scaling`, whose type is under "rope_type" or, older still, "type".
    """
    fields = {key: value for key, value in raw.items() if key not in ("rope_parameters", "rope_scaling")}
    name = "rope_parameters" if raw.get("rope_parameters") is not None else "rope_scaling"
    given = raw.get(name)
    if given is None:
        return fields, []
    if not isinstance(given, Mapping):
        return fields, [f"{name} is {given!r}; expected an object with rope_type"]
    rope = cast("Mapping[str, Any]", given)
    if "rope_theta" in rope:
        fields["rope_theta"] = rope["rope_theta"]
    problems: list[str] = []
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        problems.append(f"{name}: rope type {kind!r}; supported: {', '.join(ROPE_TYPES)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        problems.append(f"{name}: partial_rotary_factor is {rope['partial_rotary_factor']!r}; supported: 1.0")
    if kind == "llama3":
        fields["rope_scaling"] = dict(rope)
    return fields, problems


def _relations(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong between fields; fields that are wrong by themselves are left alone."""
    counts = {key: value for key, value in fields.items() if _is_count(value)}
    problems: list[str] = []
    heads, kv_heads = counts.get("num_attention_heads"), counts.get("num_key_value_heads")
    hidden, head_dim = counts.get("hidden_size"), counts.get("head_dim")
    if head_dim is None and fields.get("head_dim") is None and heads and hidden and hidden % heads == 0:
        head_dim = hidden // heads
    if heads and kv_heads and heads % kv_heads:
        problems.append(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_dim and head_dim % 2:
        problems.append(f"head_dim {head_dim} is odd; the rotary embedding needs pairs")
    rope = fields.get("rope_scaling")
    if isinstance(rope, Mapping):
        factors = cast("Mapping[str, Any]", rope)
        low, high = factors.get("low_freq_factor"), factors.get("high_freq_factor")
        if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
            problems.append(f"rope low_freq_factor {low} is not below high_freq_factor {high}")
    vocab = counts.get("vocab_size")
    for name in ("bos_token_id", "eos_token_id"):
        ids = fields.get(name)
        for token in cast("list[Any]", ids) if isinstance(ids, list | tuple) else [ids]:
            if vocab and _is_count(token) and token >= vocab:
                problems.append(f"{name} {token} is outside the vocabulary of {vocab}")
    return problems
