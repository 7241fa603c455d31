"""The memories of FlexLLM's decode engine: where the weights of every linear layer are in its ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo import Traits

from .model import Model

Array = NDArray[Any]

KINDS = ("qkv", "o", "gate", "up", "down", "head")


@dataclass(frozen=True)
class Part(Traits):
    """A linear layer in the ports.

    Attributes:
        rows, columns: of the weight.
        split: ports that share a row.
        tiles: how often all ports together have rows.
        beat, row: where it begins in its decoder layer, in a port and in the table of terms.
    """

    rows: int
    columns: int
    split: int
    tiles: int
    beat: int
    row: int

    @property
    def size(self) -> int:
        """Beats of a tile."""
        return self.columns // self.split

    @property
    def second(self) -> int:
        """The first column of the second half of the ports, if these have columns of their own."""
        return self.size if self.split == 2 else 0


@dataclass(frozen=True)
class Plan(Traits):
    """Everything in the ports: the parts of a decoder layer, as often as there are layers, then the head.

    Attributes:
        ports: of weights.
        channels: rows in a beat.
        group: output channels whose terms lie side by side.
        split: ports that may share a row, at most.
        beats, rows: of a port, and of the table of terms.
        layer_beats, layer_rows: of a decoder layer.
        inputs, outputs: of the largest part, padded.
    """

    ports: int
    channels: int
    group: int
    split: int
    layers: int
    qkv: Part
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
        return self.layers * self.layer_beats + self.head.tiles * self.head.size

    @property
    def rows(self) -> int:
        return self.layers * self.layer_rows + self.head.tiles * self.height(self.head)

    @property
    def inputs(self) -> int:
        return max(part.columns for part in self.parts.values())

    @property
    def outputs(self) -> int:
        return max(part.tiles * self.height(part) for part in self.parts.values())

    def height(self, part: Part) -> int:
        """Rows of a tile."""
        return self.ports * self.channels // part.split


def plan(model: Model, channels: int, ports: int = 16, group: int = 1, split: int = 1) -> Plan:
    """The plan of a model; queries, keys and values are one part."""
    c = model.config
    heads, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    hidden, inner = c.hidden_size, c.intermediate_size
    shapes = [
        ("qkv", heads + 2 * kv, hidden), ("o", hidden, heads),
        ("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner),
    ]  # fmt: skip

    def part(rows: int, columns: int, beat: int, row: int) -> Part:
        """The smallest of those that a split allows."""

        def beats(n: int) -> int:
            return -(-rows // (ports * channels // n)) * columns // n

        best = min((n for n in (1, 2) if n <= split), key=beats)
        return Part(rows, columns, best, -(-rows // (ports * channels // best)), beat, row)

    parts: dict[str, Part] = {}
    beat = row = 0
    for kind, rows, columns in shapes:
        made = parts[kind] = part(rows, columns, beat, row)
        beat, row = beat + made.tiles * made.size, row + made.tiles * ports * channels // made.split
    head, layers = part(c.vocab_size, hidden, 0, 0), c.num_hidden_layers
    return Plan(ports, channels, group, split, layers, **parts, head=head, layer_beats=beat, layer_rows=row)


class EngineParts:
    """The arguments of a decode on the engine, piece by piece along their first axis.

    Args:
        parts: gives those that lie as in any other design, and the weights.
    """

    def __init__(self, model: Model, plan: Plan, parts: Callable[[str], Iterable[Array]]) -> None:
        self.layers, self.plan, self.parts = model.config.num_hidden_layers, plan, parts
        self._held: dict[str, list[Array]] = {}

    def __call__(self, name: str) -> Iterator[Array]:
        port = name.removeprefix("port_")
        if port.isdigit():
            for kind, layer in self._order():
                yield beats(self._weight(kind, "codes", layer), self.plan.parts[kind], self.plan, int(port))
        elif name == "terms":
            for kind, layer in self._order():
                rows = padded(self._weight(kind, "terms", layer), self.plan.parts[kind], self.plan)
                yield rows.reshape(-1, 2 * self.plan.group)
        else:
            yield from self.parts(name)

    def _order(self) -> Iterator[tuple[str, int]]:
        """The linear layers as they lie in the ports: layer by layer, then the head."""
        yield from ((kind, layer) for layer in range(self.layers) for kind in KINDS[:-1])
        yield "head", 0

    def _weight(self, kind: str, what: str, layer: int) -> Array:
        """Codes or terms of a part; all of a kind is read at once, as every port holds some of it."""
        names = {"qkv": ("wq", "wk", "wv"), "o": ("wo",)}.get(kind, (f"w_{kind}",))
        for name in (f"{name}_{what}" for name in names):
            if name not in self._held:
                pieces = self.parts(name)
                self._held[name] = [*pieces] if kind == "head" else [p for part in pieces for p in part]
        return np.concatenate([self._held[f"{name}_{what}"][layer] for name in names])


def padded(rows: Array, part: Part, plan: Plan) -> Array:
    """Rows, and zeros up to a whole tile."""
    missing = part.tiles * plan.height(part) - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def beats(codes: Array, part: Part, plan: Plan, port: int) -> Array:
    """A weight [rows, columns] as beats [tile x column, channel] of a port.

    Rows (n C + c) P + p of C channels on P ports; shared, (n C + c) P / 2 + p of the first or second columns.
    """
    ports = plan.ports // part.split
    half, port = divmod(port, ports)
    tiles = padded(codes, part, plan).reshape(part.tiles, plan.channels, ports, part.split, part.size)
    return tiles[:, :, port, half].transpose(0, 2, 1).reshape(part.tiles * part.size, plan.channels)


__all__ = ["EngineParts", "Part", "Plan", "plan"]
