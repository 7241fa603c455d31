"""What moves through every memory channel in a phase."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..hardware.devices import Device
from .phases import Run
from .result import ChannelTraffic


def channels(
    card: Device, run: Run, mhz: float, placement: Mapping[str, Sequence[str]]
) -> tuple[ChannelTraffic, ...]:
    """The traffic of the channels that arguments lie in, averaged over a phase.

    Args:
        card: the device.
        run: the phase.
        mhz: its clock.
        placement: the channels of every argument, such as ``["HBM[3]"]``.
    """
    moved: dict[str, float] = {}
    widest: dict[str, float] = {}
    sizes = {b.name: b.dtype.bits / 8 for b in run.entry.params}
    for name, (read, written) in run.cost.words.items():
        places = placement.get(name, ())
        for channel in places:
            moved[channel] = moved.get(channel, 0) + (read + written) * sizes[name] / len(places)
            widest[channel] = max(widest.get(channel, 0), sizes[name])
    seconds = run.cost.cycles / mhz / 1e6
    return tuple(
        _traffic(card, name, moved[name] / seconds / 1e9 if seconds else 0.0, widest[name] * mhz / 1e3)
        for name in sorted(moved, key=_order)
    )


def _order(channel: str) -> tuple[str, int]:
    """Channels by kind, then by number."""
    return channel.split("[")[0], int(re.sub(r"\D", "", channel) or 0)


def _traffic(card: Device, channel: str, rate: float, port: float) -> ChannelTraffic:
    memory = next((m for m in card.memories if m.kind == channel.split("[")[0]), None)
    if memory is None or memory.channel_gb_per_s is None:
        return ChannelTraffic(channel, rate, port, 0.0)
    peak = memory.channel_gb_per_s
    return ChannelTraffic(channel, rate, min(peak * memory.efficiency, port), peak)


__all__ = ["channels"]
