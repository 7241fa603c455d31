"""How a design keeps its KV cache, as numbers: what one bitstream wrote becomes what the next one reads.

In between, and for every design that says nothing else, keys and values lie by position: ``k_codes`` and
``v_codes`` [L, C, S, D] of L layers, C heads, S positions and D elements, and where scales change from token
to token ``k_terms`` and ``v_terms``. The arrays here hold elements; words are `ir.layout`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
KINDS = ("k", "v")


@dataclass(frozen=True)
class CacheLayout:
    """Where keys and values are.

    Attributes:
        key: keys that lie side by side, element by element: [.., S / key, D, key]; 0 for whole rows.
        value: elements of a value that lie side by side: [.., D / value, S, value]; 0 for whole rows.
        by_head: whether every head has memories of its own, ``k_0``, ``k_1``, .. and ``v_0``, ..
        turns: heads, one after the other, that share these: [L, turns * .., ..].
        key_ports: memories of the keys of a head, which take the positions in turn.
    """

    key: int = 0
    value: int = 0
    by_head: bool = False
    turns: int = 1
    key_ports: int = 1

    def memories(self, cache: Mapping[str, Array]) -> dict[str, Array]:
        """The memories of the design: from arrays by position."""
        if self == PLAIN:
            return dict(cache)
        keys, values = self._packs(cache["k_codes"]), self._parts(cache["v_codes"])
        if not self.by_head:
            return {"k_codes": keys, "v_codes": values}
        keys, values = self._shared(keys), self._shared(values)
        heads, ports = range(keys.shape[1]), range(self.key_ports)
        made = {f"k_{c * self.key_ports + b}": self._turn(keys[:, c], b) for c in heads for b in ports}
        return made | {f"v_{c}": values[:, c].copy() for c in heads}

    def by_position(self, memories: Mapping[str, Array], positions: int) -> dict[str, Array]:
        """The inverse of `memories`: arrays by position, of so many.

        Args:
            positions: S; what memories hold behind it is padding.
        """
        if self == PLAIN:
            return dict(memories)
        keys, values = (self._together(kind, memories, positions) for kind in KINDS)
        if self.key:
            layers, heads, packs, size, key = keys.shape
            keys = keys.swapaxes(3, 4).reshape(layers, heads, packs * key, size)[:, :, :positions]
        if self.value:
            layers, heads, parts, length, part = values.shape
            values = values.swapaxes(2, 3).reshape(layers, heads, length, parts * part)
        return {"k_codes": np.ascontiguousarray(keys), "v_codes": np.ascontiguousarray(values)}

    def _packs(self, keys: Array) -> Array:
        """Keys [L, C, S, D] as [L, C, S / key, D, key]."""
        if not self.key:
            return keys
        layers, heads, positions, size = keys.shape
        packs = -(-positions // self.key)
        whole = resized({"k_codes": keys}, packs * self.key)["k_codes"]
        return whole.reshape(layers, heads, packs, self.key, size).swapaxes(3, 4).copy()

    def _parts(self, values: Array) -> Array:
        """Values [L, C, S, D] as [L, C, D / value, S, value]."""
        if not self.value:
            return values
        layers, heads, positions, size = values.shape
        cut = values.reshape(layers, heads, positions, size // self.value, self.value)
        return cut.swapaxes(2, 3).copy()

    def _shared(self, heads: Array) -> Array:
        """Heads [L, C, N, ..] by memory, [L, C / turns, turns * N, ..]."""
        layers, count, each, *rest = heads.shape
        return heads.reshape(layers, count // self.turns, self.turns * each, *rest)

    def _turn(self, keys: Array, port: int) -> Array:
        """What a port holds of the keys [L, S, ..] of a head; all of its ports are of one size."""
        mine = np.zeros((len(keys), -(-keys.shape[1] // self.key_ports), *keys.shape[2:]), keys.dtype)
        taken = keys[:, port :: self.key_ports]
        mine[:, : taken.shape[1]] = taken
        return mine

    def _together(self, kind: str, memories: Mapping[str, Array], positions: int) -> Array:
        """All heads of a kind in one array [L, C, ..]."""
        if not self.by_head:
            return memories[f"{kind}_codes"]
        count = sum(name.startswith(f"{kind}_") for name in memories)
        each = [memories[f"{kind}_{i}"] for i in range(count)]
        ports = self.key_ports if kind == "k" else 1
        if ports > 1:
            turns = (np.stack(each[i : i + ports], axis=2) for i in range(0, count, ports))
            each = [turn.reshape(len(turn), -1, *turn.shape[3:])[:, :positions] for turn in turns]
        found = np.stack(each, axis=1)
        layers, count, size, *rest = found.shape
        return found.reshape(layers, count * self.turns, size // self.turns, *rest)


PLAIN = CacheLayout()


def resized(cache: Mapping[str, Array], positions: int) -> dict[str, Array]:
    """A cache by position with room for so many: the first ones as they are, zeros behind."""
    made: dict[str, Array] = {}
    for name, held in cache.items():
        made[name] = np.zeros((*held.shape[:2], positions, *held.shape[3:]), held.dtype)
        kept = min(positions, held.shape[2])
        made[name][:, :, :kept] = held[:, :, :kept]
    return made


def handed_over(
    written: CacheLayout, read: CacheLayout, memories: Mapping[str, Array], held: int, wanted: int
) -> dict[str, Array]:
    """The memories of one design for another one.

    Args:
        written, read: the layouts of the two.
        memories: of the first.
        held, wanted: positions of the two.
    """
    return read.memories(resized(written.by_position(memories, held), wanted))


__all__ = ["PLAIN", "CacheLayout", "handed_over", "resized"]
