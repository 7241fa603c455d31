"""Where in off-chip memory each argument of the top function lies: channel and offset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import BackendError, TargetError, did_you_mean
from ...hardware.devices import Device, OffChipMemory

ALIGNMENT = 4096
"""Bytes at which an argument may begin: what buffers of XRT that share an allocation need."""
SELDOM = 100
"""An argument of which less than 1/SELDOM is read per call may go to the slower memory."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one argument.

    Attributes:
        memory: ``HBM`` or ``DDR``.
        first, channels: a range; more than one channel only for what is larger than one.
        offset: bytes from the start of the first channel; None in a memory that the database does not have.
        bytes: that the argument takes.
    """

    memory: str
    first: int
    channels: int
    offset: int | None
    bytes: int

    def __str__(self) -> str:
        """As the tools write it."""
        last = f":{self.first + self.channels - 1}" if self.channels > 1 else ""
        return f"{self.memory}[{self.first}{last}]"


def place(
    sizes: Mapping[str, int],
    device: Device,
    fixed: Mapping[str, int | str] | None = None,
    traffic: Mapping[str, int] | None = None,
) -> dict[str, Slot]:
    """A place for every argument.

    What is larger than a channel comes first and gets a range of its own.  Then the busiest first, each
    into the channel with room that has the least to do so far.  A large argument of which little is read
    (an embedding table) goes to the second memory of the card, as does what the first has no room or no port
    for: `sizes` are what has a port of its own.

    Args:
        sizes: bytes by argument.
        fixed: arguments placed by the user, as a channel number or as text.
        traffic: bytes moved per call by argument; by default all of each.

    Raises:
        BackendError: FX402, an unknown argument, or the arguments do not fit into the memory.
    """
    traffic = traffic or sizes
    banks = {memory.kind: _Bank(memory) for memory in device.memories}
    placed: dict[str, Slot] = {}
    for name, where in (fixed or {}).items():
        if name not in sizes:
            raise BackendError(
                "FX402", f'no memory argument "{name}" to place', hint=did_you_mean(name, sizes)
            )
        kind, channels = _channels(spelled(name, where, device.memory.kind), banks, device)
        bank = banks.get(kind)
        if bank is None:  # a memory that is not in the database, such as PLRAM[0]
            placed[name] = Slot(kind, channels.start, len(channels), None, sizes[name])
        else:
            placed[name] = bank.put(channels.start, len(channels), sizes[name], traffic.get(name, 0))
    capacity = device.memory.channel_bytes
    for name in sorted(sizes, key=lambda n: (sizes[n] <= capacity, -traffic.get(n, 0), -sizes[n], n)):
        if name not in placed:
            placed[name] = _put(name, sizes, traffic.get(name, 0), list(banks.values()), device)
    return {name: placed[name] for name in sizes}


@dataclass
class _Bank:
    """What the channels of one memory hold and have to move."""

    memory: OffChipMemory
    ports: int = 0
    held: list[int] = field(init=False)
    moved: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.held = [0] * self.memory.channels
        self.moved = [0] * self.memory.channels

    def best(self, size: int) -> tuple[int, int] | None:
        """First channel and number of channels for an argument, None if there is no room or no port."""
        if self.memory.ports is not None and self.ports >= self.memory.ports:
            return None
        capacity = self.memory.channel_bytes
        width = max(1, -(-size // capacity))
        fits = [
            (max(self.moved[i : i + width]), max(self.held[i : i + width]), i)
            for i in range(self.memory.channels - width + 1)
            if (self.held[i] + size <= capacity if width == 1 else not any(self.held[i : i + width]))
        ]
        return (min(fits)[2], width) if fits else None

    def put(self, first: int, width: int, size: int, moved: int) -> Slot:
        self.ports += 1
        offset = self.held[first]
        left = -(-size // ALIGNMENT) * ALIGNMENT
        for channel in range(first, first + width):
            part = left if channel == first + width - 1 else min(left, self.memory.channel_bytes)
            self.held[channel] += part
            self.moved[channel] += -(-moved // width)
            left -= part
        return Slot(self.memory.kind, first, width, offset, size)


def _put(name: str, sizes: Mapping[str, int], moved: int, banks: list[_Bank], device: Device) -> Slot:
    size = sizes[name]
    seldom = size > banks[0].memory.channel_bytes and moved * SELDOM < size
    for bank in reversed(banks) if seldom else banks:
        found = bank.best(size)
        if found is not None:
            return bank.put(*found, size, moved)
    total, room = sum(sizes.values()), sum(m.total_bytes for m in device.memories)
    excess = f", {total - room} too many" if total > room else ""
    raise BackendError(
        "FX402",
        f'argument "{name}" ({size} bytes) does not fit into the memory of {device.name}; '
        f"all arguments take {total} of {room} bytes{excess}",
        hint="use fewer bits per weight or a card with more memory",
    )


def spelled(name: str, where: object, kind: str) -> str:
    """A memory channel as the tools write it."""
    if isinstance(where, int):
        return f"{kind}[{where}]"
    if isinstance(where, str) and re.fullmatch(r"\w+\[\d+(:\d+)?\]", where):
        return where
    raise TargetError(
        "FX402",
        f"Invalid memory specification for '{name}': {where!r}",
        hint="a channel number, or text such as HBM[3] or DDR[0]",
    )


def _channels(text: str, banks: Mapping[str, _Bank], device: Device) -> tuple[str, range]:
    """Memory and channels of a text such as ``HBM[4:6]``."""
    kind, _, rest = text.partition("[")
    first, _, last = rest.rstrip("]").partition(":")
    channels = range(int(first), int(last or first) + 1)
    bank = banks.get(kind)
    if bank is not None and (not channels or channels[-1] >= bank.memory.channels):
        raise BackendError(
            "FX402",
            f'"{text}" is no memory channel of {device.name}',
            hint=f"{kind}[0] to {kind}[{bank.memory.channels - 1}]",
        )
    return kind, channels
