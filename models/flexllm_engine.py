"""The memories of FlexLLM's decode engine: where the weights of every linear layer are in its ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo import Traits

from .model import Model

KINDS = ("kv", "q", "o", "gate", "up", "down", "head")


@dataclass(frozen=True)
class Part(Traits):
    """A linear layer in the ports.

    Attributes:
        rows, columns: of the weight.
        tiles: how often all ports together have rows.
        beat, row: where it begins in its decoder layer, in a port and in the table of terms.
    """

    rows: int
    columns: int
    tiles: int
    beat: int
    row: int


@dataclass(frozen=True)
class Plan(Traits):
    """Everything in the ports: the parts of a decoder layer, as often as there are layers, then the head.

    Attributes:
        ports: of weights.
        channels: rows in a beat.
        group: output channels whose terms lie side by side.
        beats, rows: of a port, and of the table of terms.
        layer_beats, layer_rows: of a decoder layer.
        inputs, outputs: of the largest part, padded.
    """

    ports: int
    channels: int
    group: int
    layers: int
    kv: Part
    q: Part
    o: Part
    gate: Part
    up: Part
    down: Part
    head: Part
    layer_beats: int
    layer_rows: int

    @property
    def parts(self) -> dict[str, Part]:
        return {kind: getattr(self, kind) for kind in KINDS}

    @property
    def beats(self) -> int:
        return self.layers * self.layer_beats + self.head.tiles * self.head.columns

    @property
    def rows(self) -> int:
        return self.layers * self.layer_rows + self.head.tiles * self.ports * self.channels

    @property
    def inputs(self) -> int:
        return max(part.columns for part in self.parts.values())

    @property
    def outputs(self) -> int:
        return max(part.tiles for part in self.parts.values()) * self.ports * self.channels


def plan(model: Model, channels: int, ports: int = 16, group: int = 1) -> Plan:
    """The plan of a model; keys and values are one part."""
    c = model.config
    heads, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    hidden, inner = c.hidden_size, c.intermediate_size
    shapes = [
        ("kv", 2 * kv, hidden), ("q", heads, hidden), ("o", hidden, heads),
        ("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner),
    ]  # fmt: skip
    parts: dict[str, Part] = {}
    beat = row = 0
    for kind, rows, columns in shapes:
        tiles = -(-rows // (ports * channels))
        parts[kind] = Part(rows, columns, tiles, beat, row)
        beat, row = beat + tiles * columns, row + tiles * ports * channels
    head = Part(c.vocab_size, hidden, -(-c.vocab_size // (ports * channels)), 0, 0)
    return Plan(ports, channels, group, c.num_hidden_layers, **parts, head=head, layer_beats=beat, layer_rows=row)


def engine_constants(arrays: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """`models.arrays.constant_arrays` with all linear layers in the ports and the table of the engine."""
    found = dict(arrays)
    weights: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for kind in ("wk", "wv", "wq", "wo", "w_gate", "w_up", "w_down", "w_head"):
        name = kind.removeprefix("w").removeprefix("_")
        weights[name] = found.pop(f"{kind}_codes"), found.pop(f"{kind}_terms")
    k, v = weights.pop("k"), weights.pop("v")
    weights["kv"] = np.concatenate([k[0], v[0]], axis=1), np.concatenate([k[1], v[1]], axis=1)
    ports: list[NDArray[Any]] = []
    terms: list[NDArray[Any]] = []
    for layer in range(plan.layers):
        for kind in KINDS[:-1]:
            codes, more = weights[kind]
            ports.append(beats(codes[layer], plan.parts[kind], plan))
            terms.append(padded(more[layer], plan.parts[kind], plan))
    ports.append(beats(weights["head"][0], plan.head, plan))
    terms.append(padded(weights["head"][1], plan.head, plan))
    joined = np.concatenate(ports, axis=1)
    found |= {f"port_{i}": np.ascontiguousarray(joined[i]) for i in range(plan.ports)}
    return found | {"terms": np.concatenate(terms).reshape(-1, 2 * plan.group)}


def padded(rows: NDArray[Any], part: Part, plan: Plan) -> NDArray[Any]:
    """Rows, and zeros up to a whole tile."""
    missing = part.tiles * plan.ports * plan.channels - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def beats(codes: NDArray[Any], part: Part, plan: Plan) -> NDArray[Any]:
    """A weight [rows, columns] as beats [port, tile x column, channel]; port p has rows (n C + c) P + p."""
    tiles = padded(codes, part, plan).reshape(part.tiles, plan.channels, plan.ports, part.columns)
    return tiles.transpose(2, 0, 3, 1).reshape(plan.ports, part.tiles * part.columns, plan.channels)


__all__ = ["Part", "Plan", "engine_constants", "plan"]
