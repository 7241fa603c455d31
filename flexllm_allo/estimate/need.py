"""What stages take of a card together: stages that are on it at once share the ports to memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..hardware.devices import Device, Resources
from .limits import Demand, excesses, total, utilization
from .result import Module


class Need(Protocol):
    """A stage by itself: all that it takes, and how much of it are the ports, which others may use too."""

    @property
    def resources(self) -> Resources: ...
    @property
    def ports(self) -> Resources: ...


def together(stages: Sequence[Need]) -> Resources:
    """What stages take that are on a card at once; they use the ports of the first one."""
    used = total(stage.resources for stage in stages)
    for _ in stages[1:]:
        used -= stages[0].ports
    return used


def holds(card: Device, used: Resources) -> bool:
    """Whether so much of a card may be used.

    Raises:
        EstimateError: FX911, nothing is known of the resources of the card.
    """
    return not excesses(Demand([Module("design", used)]), card)


def fullest(card: Device, used: Resources) -> tuple[float, str]:
    """The share of the resource that is used most, and its field; nothing where a card tells of none."""
    if card.available is None:
        return 0.0, ""
    return max((share, name) for name, share in utilization(used, card.available).items())


__all__ = ["Need", "fullest", "holds", "together"]
