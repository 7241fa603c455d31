"""What moves through every memory channel in a phase."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..hardware.devices import Device
from .phases import Run
from .result import ChannelTraffic

Placement = Mapping[str, Sequence[str]]
"""The channels of every argument, such as ``["HBM[3]"]``."""


def channels(
    card: Device, run: Run, mhz: float, placement: Placement, seconds: float
) -> tuple[ChannelTraffic, ...]:
    """The traffic of the channels that arguments lie in, averaged over a phase.

    Args:
        card: the device.
        run: the phase.
        mhz: its clock.
        placement: where its arguments lie.
        seconds: that it takes.
    """
    moved = _moved(run, placement)
    widest: dict[str, float] = {}
    sizes = {b.name: b.dtype.bits / 8 for b in run.entry.params}
    for name in run.cost.words:
        for channel in placement.get(name, ()):
            widest[channel] = max(widest.get(channel, 0), sizes[name])
    return tuple(
        _traffic(card, name, moved[name] / seconds / 1e9 if seconds else 0.0, widest[name] * mhz / 1e3)
        for name in sorted(moved, key=_order)
    )


def busiest(card: Device, run: Run, placement: Placement) -> tuple[str, float, float]:
    """The channel whose bytes take longest at what it gives: its name, these seconds, and GB/s it gives.

    A port by itself never asks for more than a channel gives; ports that work at the same time may, on a
    card that has fewer channels.
    """
    rates = {m.kind: m.channel_gb_per_s * m.efficiency for m in card.memories if m.channel_gb_per_s}
    found = [
        (size / rates[kind] / 1e9, channel, rates[kind])
        for channel, size in _moved(run, placement).items()
        if (kind := channel.partition("[")[0]) in rates
    ]
    seconds, channel, rate = max(found, default=(0.0, "", 0.0))
    return channel, seconds, rate


def _moved(run: Run, placement: Placement) -> dict[str, float]:
    """Bytes by channel."""
    moved: dict[str, float] = {}
    sizes = {b.name: b.dtype.bits / 8 for b in run.entry.params}
    for name, (read, written) in run.cost.words.items():
        places = placement.get(name, ())
        for channel in places:
            moved[channel] = moved.get(channel, 0) + (read + written) * sizes[name] / len(places)
    return moved


def _order(channel: str) -> tuple[str, int]:
    """Channels by kind, then by number."""
    return channel.split("[")[0], int(re.sub(r"\D", "", channel) or 0)


def _traffic(card: Device, channel: str, rate: float, port: float) -> ChannelTraffic:
    memory = next((m for m in card.memories if m.kind == channel.split("[")[0]), None)
    if memory is None or memory.channel_gb_per_s is None:
        return ChannelTraffic(channel, rate, port, 0.0)
    peak = memory.channel_gb_per_s
    return ChannelTraffic(channel, rate, min(peak * memory.efficiency, port), peak)


__all__ = ["Placement", "busiest", "channels"]
