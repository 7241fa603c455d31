"""Both stages of a design together: seconds, energy, and what is on the card at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...errors import EstimateError
from ...estimate.need import together
from ...estimate.power import power
from ...estimate.search import Candidate
from ...hardware.devices import Resources
from .space import Space

Objective = Literal["latency", "throughput", "energy"]
"""latency: of the prompt and all new tokens. throughput: tokens per second of decode. energy: of the run."""


@dataclass(frozen=True)
class Pair:
    """Both stages on one card.

    Attributes:
        steps: tokens that decode makes.
        prefill_s, decode_s: seconds of the prompt, and of all new tokens.
        joules: of both.
        used: resources at one time.
    """

    prefill: Candidate
    decode: Candidate
    steps: int
    prefill_s: float
    decode_s: float
    joules: float
    used: Resources

    @property
    def cycles(self) -> float:
        """Of the whole run."""
        return self.prefill.cycles + self.decode.cycles * self.steps

    @property
    def busy(self) -> Mapping[str, float]:
        """Cycles of the busiest instances by knob, in the whole run."""
        names = {*self.prefill.busy, *self.decode.busy}
        return {
            n: self.prefill.busy.get(n, 0.0) + self.decode.busy.get(n, 0.0) * self.steps
            for n in sorted(names)
        }

    def cost(self, objective: Objective) -> tuple[float, float]:
        """What is to be small; the latency decides between equals."""
        latency = self.prefill_s + self.decode_s
        return {"latency": latency, "throughput": self.decode_s, "energy": self.joules}[objective], latency


def pair(space: Space, first: Candidate, second: Candidate) -> Pair:
    """A prefill and a decode, where the engines of the stages are as the search has it."""
    steps = space.new_tokens - 1
    seconds = [first.cycles / space.mhz / 1e6, second.cycles / space.mhz / 1e6 * steps]
    moved = [first.bytes, second.bytes * steps]
    alone = [first.resources, second.resources]
    each = [together((first, second))] * 2 if space.mode == "resident" else alone
    try:
        watts = [
            power(space.card, used, space.mhz, size / s / 1e9 if s else 0.0).total_w
            for used, size, s in zip(each, moved, seconds, strict=True)
        ]
    except EstimateError:  # nothing is known of the power of the card
        watts = [0.0, 0.0]
    joules = sum(w * s for w, s in zip(watts, seconds, strict=True))
    return Pair(first, second, steps, seconds[0], seconds[1], joules, _most(each))


def _most(several: Sequence[Resources]) -> Resources:
    return Resources(*(max(column) for column in zip(*(r.counts() for r in several), strict=True)))


__all__ = ["Objective", "Pair", "pair"]
