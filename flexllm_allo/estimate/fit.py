"""The answer to whether a design fits its device: what exceeds, by how much, and what would fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Excess:
    """One limit that is exceeded.

    Attributes:
        what: the resource, or a kind of channels.
        used: by the design.
        there_are: on the device.
        cap: the share of these that is allowed, None for channels.
        where: the bitstream, where several take turns.
    """

    what: str
    used: int
    there_are: int
    cap: float | None = None
    where: str = ""

    @property
    def limit(self) -> int:
        return self.there_are if self.cap is None else int(self.cap * self.there_are + 1e-6)

    @property
    def over(self) -> int:
        return self.used - self.limit

    def __str__(self) -> str:
        what = f"{self.where}: {self.what}" if self.where else self.what
        if self.cap is None:
            return f"{what} {self.used:,} of {self.there_are:,}, {self.over:,} over"
        if not self.there_are:
            return f"{what} {self.used:,}, and there are none on this part"
        allowed = f"{self.cap:.0%} of {self.there_are:,}"
        return f"{what} {self.used:,} of {self.limit:,} ({allowed}), {self.over:,} over"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with what follows from it."""
        return {
            "bitstream": self.where or None,
            "what": self.what,
            "used": self.used,
            "limit": self.limit,
            "over": self.over,
            "there_are": self.there_are,
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a design fits its device.

    Attributes:
        exceeded: the limits that it is over.
        unplaced: why its arrays have no place in the memory of the device, by bitstream.
        others: cards that hold it, by name.
        advice: what would fit on this one, in words.
        nearest: the fields of a preset to change so that it fits, and to what.
    """

    exceeded: tuple[Excess, ...] = ()
    unplaced: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    advice: str = ""
    nearest: Mapping[str, int | str] = field(default_factory=dict[str, int | str])

    def __bool__(self) -> bool:
        return not self.exceeded and not self.unplaced

    @property
    def reasons(self) -> list[str]:
        """Why it does not, a line each."""
        return [*map(str, self.exceeded), *self.unplaced]

    @property
    def remedies(self) -> list[str]:
        """What would fit, a line each."""
        cards = f"it fits {', '.join(self.others)}" if self.others else "it fits no card of the database"
        return [self.advice, cards] if self.advice else [cards]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "fits": bool(self),
            "exceeded": [excess.to_dict() for excess in self.exceeded],
            "unplaced": list(self.unplaced),
            "others": list(self.others),
            "advice": self.advice,
            "nearest": dict(self.nearest) or None,
        }


__all__ = ["Excess", "Fit"]
