"""Search over the parameters of schedules: raise what binds, keep what nothing beats.

Where the parts of a stage work at the same time, the slowest part tells the time, which falls only if that
part gets faster. Raising its parameter to the next choice, and no other, passes through the smallest setting
for every time that can be reached: the bisection of a min-max under additive limits, walked from below.
Where parts take turns it is a heuristic: the largest part has the most to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..hardware.devices import Resources

Parameters = dict[str, int]
T = TypeVar("T")

GAIN = 0.005
"""Share of the time that a raise has to gain."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stage with its parameters, estimated.

    Attributes:
        schedule: the name of its schedule.
        parameters: of that.
        cycles: of the prompt, or of one token.
        bytes: moved through off-chip memory meanwhile.
        resources: of all its function instances, the memory ports among them.
        ports: of the memory ports, which stages share.
        busy: cycles of the busiest instance that a knob shapes, by knob.
        binds: what limits it, in words.
    """

    schedule: str
    parameters: Parameters
    cycles: float
    bytes: float
    resources: Resources
    ports: Resources
    busy: Mapping[str, float] = field(default_factory=dict[str, float])
    binds: str = ""


Knobs = Mapping[str, Sequence[Parameters]]
"""Parameters that belong together, by name: their choices, each takes more of the die than the one before."""


def climb(
    start: Parameters,
    knobs: Knobs,
    evaluate: Callable[[Parameters], Candidate],
    fits: Callable[[Candidate], bool],
) -> list[Candidate]:
    """All settings on the way from the smallest one to where nothing that binds can be raised.

    A raise that does not fit, or that makes its own part no faster, is taken back, and its knob stays where
    it is. Settings no faster than those before are passed, but not returned: another part is as slow.
    """
    at = dict.fromkeys(knobs, 0)

    def setting() -> Parameters:
        found = dict(start)
        for name, choices in knobs.items():
            found |= choices[at[name]]
        return found

    here = evaluate(setting())
    found = [here]

    def is_gain(raised: Candidate, name: str) -> bool:
        own = raised.busy.get(name, 0.0) < here.busy.get(name, 0.0) * (1 - GAIN)
        return own or raised.cycles < here.cycles * (1 - GAIN)

    open_ = {name for name, choices in knobs.items() if len(choices) > 1}
    while open_ and fits(here):
        name = max(sorted(open_), key=lambda n: here.busy.get(n, 0.0))
        at[name] += 1
        raised = evaluate(setting())
        if fits(raised) and is_gain(raised, name):
            here = raised
            if raised.cycles < found[-1].cycles * (1 - GAIN):
                found.append(raised)
        else:
            at[name] -= 1
            open_.discard(name)
        if at[name] == len(knobs[name]) - 1:
            open_.discard(name)
    return found


def pareto(points: Iterable[T], costs: Callable[[T], Sequence[float]]) -> list[T]:
    """The points that no other one beats in one cost without losing in another, the first of equals."""
    kept: list[tuple[Sequence[float], T]] = []
    for point in points:
        cost = costs(point)
        if any(_no_worse(other, cost) for other, _ in kept):
            continue
        kept = [(other, p) for other, p in kept if not _no_worse(cost, other)]
        kept.append((cost, point))
    return [point for _, point in kept]


def _no_worse(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


__all__ = ["Candidate", "Knobs", "Parameters", "climb", "pareto"]
