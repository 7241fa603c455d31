"""Published accelerators as configurations (`systems.toml`): the decode rate that documented facts give.

A prediction is the smaller of two ceilings: the bytes of a token at the bandwidth of the card, and its
products at the multipliers of the design. Where it misses the published rate, the assumption that is
missing is named.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from typing import Any

from ..estimate.roofline import WeightFormat, bandwidth_ceiling, kv_bytes, roofline
from ..hardware.devices import FOREIGN_CHANNEL, device
from ..models.spec import LlamaConfig
from ..quant.recipes import get_recipe

NEAR = 0.15
"""A prediction within this share of the published rate lands on it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A published rate.

    Attributes:
        length: positions in the context, 0 where nothing is said.
        basis: ``board`` or ``simulated``.
    """

    tokens_per_second: float
    length: int
    basis: str


@dataclass(frozen=True, slots=True)
class Assumption:
    """What a prediction takes for granted.

    Attributes:
        what: in words.
        missing: what the published rate takes for granted beyond that, in words.
        recipe: one of ours, whose formats the weights have.
        bits, kept, index_bits, group, scale_bits: of weights without a recipe, as in `WeightFormat`.
        efficiency: of the memory, where it is not that of the database.
        foreign: whether channels are read through ports of others.
        length: positions in the context, where nothing is published.
    """

    what: str
    missing: str
    recipe: str | None = None
    bits: float | None = None
    kept: float = 1.0
    index_bits: float = 0.0
    group: int | None = None
    scale_bits: float = 16.0
    efficiency: float | None = None
    foreign: bool = False
    length: int = 0


@dataclass(frozen=True, slots=True)
class System:
    """A published accelerator.

    Attributes:
        config: the shape of its model.
        activation_bits, kv_bits: of its products and of its cache.
        dsps: that multiply; all of the card where it is not known.
        token_gb: weights of a token, where they are published themselves.
    """

    key: str
    name: str
    device: str
    mhz: float
    shape: str
    config: LlamaConfig
    activation_bits: int
    kv_bits: int
    source: str
    rates: tuple[Rate, ...]
    assumptions: tuple[Assumption, ...]
    dsps: int | None = None
    token_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A published rate, and what one assumption gives for it."""

    system: System
    rate: Rate
    assumption: Assumption
    gb_per_token: float
    efficiency: float
    tokens_per_second: float
    binds: str

    @property
    def ratio(self) -> float:
        """Predicted over published."""
        return self.tokens_per_second / self.rate.tokens_per_second

    @property
    def lands(self) -> bool:
        """Whether it is within 15 % of the published rate."""
        return abs(self.ratio - 1) <= NEAR

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``flexllm systems --json`` writes it."""
        return {
            "system": self.system.name,
            "device": self.system.device,
            "clock_mhz": self.system.mhz,
            "model": self.system.shape,
            "source": self.system.source,
            "published": self.rate.tokens_per_second,
            "basis": self.rate.basis,
            "length": self.rate.length or self.assumption.length or None,
            "assumption": self.assumption.what,
            "gb_per_token": self.gb_per_token,
            "efficiency": self.efficiency,
            "predicted": self.tokens_per_second,
            "ratio": self.ratio,
            "binds": self.binds,
            "within_15_percent": self.lands,
            "missing": None if self.lands else self.assumption.missing,
        }


def predictions() -> list[Prediction]:
    """All published rates under all assumptions, in the order of the file."""
    return [
        _predict(system, rate, assumption)
        for system in systems()
        for rate in system.rates
        for assumption in system.assumptions
    ]


def systems() -> list[System]:
    """The accelerators of the file."""
    text = (files(__package__ or "flexllm_allo.runtime") / "systems.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    shapes = {name: LlamaConfig.from_dict(raw, name) for name, raw in tables.pop("shapes").items()}
    return [_parse(key, entry, shapes) for key, entry in tables.items()]


def _parse(key: str, entry: dict[str, Any], shapes: Mapping[str, LlamaConfig]) -> System:
    rates = tuple(Rate(**row) for row in entry.pop("rates"))
    assumptions = tuple(Assumption(**row) for row in entry.pop("assumptions"))
    return System(key=key, config=shapes[entry["shape"]], rates=rates, assumptions=assumptions, **entry)


def _predict(system: System, rate: Rate, assumption: Assumption) -> Prediction:
    card, c = device(system.device), system.config
    weights = weight_bytes(system, assumption)
    cache = kv_bytes(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, system.kv_bits)
    moved = weights + cache * (rate.length or assumption.length)
    efficiency = assumption.efficiency or (FOREIGN_CHANNEL if assumption.foreign else card.memory.efficiency)
    roofs = roofline(card, system.mhz, system.activation_bits, system.activation_bits, 1.0, system.dsps)
    products = sum(rows * columns for rows, columns, _ in matrices(c))
    ceilings = {
        "memory": bandwidth_ceiling(moved, card.memory.gb_per_s or inf, efficiency),
        "multipliers": roofs.ops_per_s / 2 / (products * _kept(assumption)),
    }
    binds = min(ceilings, key=lambda name: ceilings[name])
    return Prediction(system, rate, assumption, moved / 1e9, efficiency, ceilings[binds], binds)


def weight_bytes(system: System, assumption: Assumption) -> float:
    """Bytes of weights that a token reads: published, of our recipe, or of a format."""
    shapes = list(matrices(system.config))
    if assumption.recipe:
        recipe = get_recipe(assumption.recipe)
        formats = {False: recipe.weight, True: recipe.head}
        return sum(
            rows * columns * (fmt.bits_per_weight(columns) if (fmt := formats[is_head]) else 32) / 8
            for rows, columns, is_head in shapes
        )
    if assumption.bits is None:
        return (system.token_gb or 0.0) * 1e9
    a = assumption
    fmt = WeightFormat(assumption.bits, a.kept, a.index_bits, a.group, a.scale_bits)
    found = fmt.token_bytes(sum(rows * columns for rows, columns, _ in shapes))
    return found.weights + found.scales


def matrices(config: LlamaConfig) -> Iterator[tuple[int, int, bool]]:
    """Rows and columns of every matrix that a token meets, and whether it is the head."""
    c = config
    inner, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    layer = [(inner, c.hidden_size), (kv, c.hidden_size), (kv, c.hidden_size), (c.hidden_size, inner)]
    gates = 2 if c.architecture.mlp == "swiglu" else 1
    layer += [(c.intermediate_size, c.hidden_size)] * gates + [(c.hidden_size, c.intermediate_size)]
    for _ in range(c.num_hidden_layers):
        yield from ((*shape, False) for shape in layer)
    yield c.vocab_size, c.hidden_size, True


def _kept(assumption: Assumption) -> float:
    """The share of products that pruning leaves."""
    fmt = get_recipe(assumption.recipe).weight if assumption.recipe else None
    sparsity = getattr(fmt, "sparsity", None)
    return sparsity.density if sparsity else assumption.kept


def system_rows() -> list[dict[str, str]]:
    """The predictions as a table."""
    return [
        {
            "system": f"{p.system.name}, {p.system.device}",
            "published": f"{p.rate.tokens_per_second:g} ({p.rate.basis})",
            "assumed": p.assumption.what,
            "GB a token": f"{p.gb_per_token:.3f}",
            "of the peak": f"{p.efficiency:.0%}",
            "predicted": f"{p.tokens_per_second:.1f} ({p.ratio - 1:+.0%})",
            "missing": "" if p.lands else p.assumption.missing,
        }
        for p in predictions()
    ]


__all__ = ["Prediction", "System", "matrices", "predictions", "system_rows", "systems", "weight_bytes"]
