"""The memory map of a design: each tensor's channel, offset and size, from the ports the schedules made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..analysis.traffic import footprints
from ..backend.hls.bundles import shared_bundles
from ..backend.hls.csim import csim_bytes
from ..backend.hls.interface import is_memory_port
from ..backend.hls.placement import ALIGNMENT, Slot, place
from ..errors import BackendError
from ..hardware.devices import Device, devices
from ..hybrid import HybridTop
from ..ir import nodes as ir
from .bitstream import Bitstream

WEIGHTS = "weights"
"""Folder of the per-channel files in a project."""


@dataclass(frozen=True)
class Placement:
    """One array of the top function.

    Attributes:
        buffer: the port: words as the schedule packed them.
        slot: where it lies.
        bundle: the AXI port it is reached through.
        bytes_per_token: moved while one token is decoded, at a full context.
        is_constant: whether it is the same in every run, and so in the file of its channel.
    """

    buffer: ir.Buffer
    slot: Slot
    bundle: str
    bytes_per_token: int
    is_constant: bool

    @property
    def name(self) -> str:
        return self.buffer.name

    @property
    def file(self) -> str:
        """The file, in the project, of the channels it lies in."""
        first, last = self.slot.first, self.slot.first + self.slot.channels - 1
        range_ = f"{first:02}" if first == last else f"{first:02}-{last:02}"
        return f"{WEIGHTS}/{self.slot.memory.lower()}{range_}.bin"

    @property
    def word_bytes(self) -> int:
        """Bytes the port moves in a cycle."""
        return csim_bytes(self.buffer.dtype)


@dataclass(frozen=True)
class MemoryMap:
    """All arrays of a design, by name."""

    device: Device
    frequency_mhz: float
    placements: Mapping[str, Placement]

    @property
    def files(self) -> dict[str, list[Placement]]:
        """The constants by file, in the order of their offsets."""
        out: dict[str, list[Placement]] = {}
        constants = [p for p in self.placements.values() if p.is_constant]
        for p in sorted(constants, key=lambda p: (p.file, p.slot.offset)):
            out.setdefault(p.file, []).append(p)
        return out

    @property
    def bytes_per_token(self) -> int:
        return sum(p.bytes_per_token for p in self.placements.values())

    def seconds(self, placement: Placement) -> float:
        """What moving an array for one token takes at least: its port or its channel is the limit."""
        port = placement.word_bytes * self.frequency_mhz * 1e6
        memory = next(m for m in self.device.memories if m.kind == placement.slot.memory)
        channel = memory.channel_gb_per_s
        rate = port if channel is None else min(port, channel * 1e9 * placement.slot.channels)
        return placement.bytes_per_token / rate

    def bandwidth(self) -> dict[str, Any]:
        """The check of bandwidth, an estimate from widths, clock and the data sheet (no measurement).

        ``tokens_per_second_one_engine`` is the bound of a decode stage that reads its weights one after the
        other, ``tokens_per_second_all_channels`` that of one that keeps every channel busy;
        ``limited_by_channel`` are the arrays whose port asks for more than their channel gives.
        """
        busy: dict[str, float] = {}
        for p in self.placements.values():
            busy[p.file] = busy.get(p.file, 0.0) + self.seconds(p)
        total, most = sum(busy.values()), max(busy.values())
        return {
            "bytes_per_token": self.bytes_per_token,
            "tokens_per_second_one_engine": round(1 / total, 1) if total else None,
            "tokens_per_second_all_channels": round(1 / most, 1) if most else None,
            "busiest_channel": max(busy, key=lambda f: busy[f]).rpartition("/")[2].removesuffix(".bin"),
            "limited_by_channel": [p.name for p in self.placements.values() if self._starves(p)],
        }

    def _starves(self, p: Placement) -> bool:
        memory = next(m for m in self.device.memories if m.kind == p.slot.memory)
        rate = memory.channel_gb_per_s
        return rate is not None and p.word_bytes * self.frequency_mhz / 1e3 > rate * p.slot.channels


def memory_map(
    top: HybridTop | Bitstream, device: Device, frequency_mhz: float, run_arguments: Iterable[str]
) -> MemoryMap:
    """Place the arrays of a design: balanced by the bytes that move per decoded token, or in a prefill.

    Args:
        top: the scheduled design; widths, shapes and packing of its ports are read from it.
        run_arguments: names of arguments that differ from run to run; the others are constants.

    Raises:
        BackendError: FX402, it does not fit: what exceeds, by how much, and the nearest setting that fits.
    """
    program, function = top.top, top.top.function(top.top.top)
    ports = [b for b in function.params if is_memory_port(function, b)]
    sizes = {b.name: prod(b.shape) * csim_bytes(b.dtype) for b in ports}
    words = {b.name: csim_bytes(b.dtype) for b in ports}
    moved = {n: count * words[n] for n, count in footprints(program, top.stage).items() if n in words}
    bundles = shared_bundles(program, device, sizes, moved)
    try:
        slots = place_bundles(sizes, device, bundles, moved)
    except BackendError as error:
        hint = _nearest(top, sizes, device, bundles, moved)
        raise BackendError(error.code, error.message, hint=hint or error.hint) from None
    varying = {*run_arguments, *(b.name for b in function.outputs)}
    placements = {
        b.name: Placement(
            b, slots[b.name], bundles[b.name], moved.get(b.name, 0), is_constant=b.name not in varying
        )
        for b in ports
    }
    return MemoryMap(device, frequency_mhz, placements)


def place_bundles(
    sizes: Mapping[str, int], device: Device, bundles: Mapping[str, str], traffic: Mapping[str, int]
) -> dict[str, Slot]:
    """A slot for every argument; those of a bundle lie one after the other in one place."""
    members: dict[str, list[str]] = {}
    for name in sizes:
        members.setdefault(bundles[name], []).append(name)
    units = {names[0]: names for names in members.values()}
    size = {
        unit: sum(_aligned(sizes[n]) for n in names[:-1]) + sizes[names[-1]] for unit, names in units.items()
    }
    moved = {unit: sum(traffic.get(n, 0) for n in names) for unit, names in units.items()}
    slots: dict[str, Slot] = {}
    for unit, slot in place(size, device, traffic=moved).items():
        offset = slot.offset or 0
        for name in units[unit]:
            slots[name] = replace(slot, offset=offset, bytes=sizes[name])
            offset += _aligned(sizes[name])
    return slots


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _nearest(
    top: HybridTop | Bitstream,
    sizes: Mapping[str, int],
    device: Device,
    bundles: Mapping[str, str],
    traffic: Mapping[str, int],
) -> str:
    """The longest context that fits; else the cards that would hold the design."""

    def fits(card: Device, positions: int) -> bool:
        scaled = {
            n: size * positions // length
            if re.fullmatch(r"[kv]_\w+|cosine|sine|stream|prompt|tokens", n)
            else size
            for n, size in sizes.items()
        }
        try:
            place_bundles(scaled, card, bundles, traffic)
        except BackendError:
            return False
        return True

    length = int(top.model.max_seq_len)
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(device, middle) else (low, middle)
    if low:
        return f"it fits with max_seq_len {low}"
    cards = [card.key for card in devices() if card.key != device.key and fits(card, length)]
    return f"it fits on {', '.join(cards)}; or use fewer bits per weight" if cards else ""
