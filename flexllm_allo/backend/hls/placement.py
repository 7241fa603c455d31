"""Which off-chip memory channel each argument of the top function lies in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...errors import BackendError, TargetError, did_you_mean
from ...hardware.devices import Device


def place(
    sizes: Mapping[str, int], device: Device, fixed: Mapping[str, int | str] | None = None
) -> dict[str, str]:
    """A channel (``HBM[3]``) or range of channels (``HBM[4:6]``) for every argument.

    The largest first, each into the channel that holds least so far; one larger than a channel gets
    a range of its own.

    Args:
        sizes: bytes by argument.
        fixed: arguments placed by the user, as a channel number or as text.

    Raises:
        BackendError: FX402, an unknown argument, or the arguments do not fit into the memory.
    """
    memory = device.memory
    fixed = fixed or {}
    for name in fixed:
        if name not in sizes:
            raise BackendError(
                "FX402", f'no memory argument "{name}" to place', hint=did_you_mean(name, sizes)
            )
    placed = {name: spelled(name, where, memory.kind) for name, where in fixed.items()}
    load = [0] * memory.channels
    for name, text in placed.items():
        for channel in _channels(text, device):
            load[channel] += sizes[name]
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        if name in placed:
            continue
        width = max(1, -(-sizes[name] // memory.channel_bytes))
        first = _best(load, width, sizes[name], memory.channel_bytes)
        if first is None:
            total = sum(sizes.values())
            raise BackendError(
                "FX402",
                f'argument "{name}" ({sizes[name]} bytes) does not fit into the memory of {device.name}; '
                f"all arguments take {total} of {memory.channels * memory.channel_bytes} bytes",
                hint="use fewer bits per weight or a card with more memory",
            )
        for channel in range(first, first + width):
            load[channel] += -(-sizes[name] // width)
        placed[name] = (
            f"{memory.kind}[{first}]" if width == 1 else f"{memory.kind}[{first}:{first + width - 1}]"
        )
    return {name: placed[name] for name in sizes}


def _best(load: list[int], width: int, size: int, capacity: int) -> int | None:
    """The first channel of the least loaded range with room; ranges of several must be empty."""
    fits = [
        (max(load[i : i + width]), i)
        for i in range(len(load) - width + 1)
        if (load[i] + size <= capacity if width == 1 else not any(load[i : i + width]))
    ]
    return min(fits)[1] if fits else None


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


def _channels(text: str, device: Device) -> range:
    kind, _, rest = text.partition("[")
    first, _, last = rest.rstrip("]").partition(":")
    if kind != device.memory.kind:
        return range(0)  # another memory of the card, such as DDR[0]
    if not first.isdigit() or int(last or first) >= device.memory.channels:
        raise BackendError(
            "FX402",
            f'"{text}" is no memory channel of {device.name}',
            hint=f"{kind}[0] to {kind}[{device.memory.channels - 1}]",
        )
    return range(int(first), int(last or first) + 1)
