"""Search over the parameters of schedules: raise what binds, keep what nothing beats.

Where the parts of a stage work at the same time, the slowest part tells the time, which falls only if that
part gets faster. Raising its parameter to the next choice, and no other, passes through the smallest setting
for every time that can be reached: a min-max under additive limits, solved exactly (tests hold it against an
integer program). Where parts take turns it is a heuristic: the largest part has the most to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

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


class Timed(Protocol):
    """What is climbed: a stage, or both of them."""

    @property
    def cycles(self) -> float: ...
    @property
    def busy(self) -> Mapping[str, float]: ...


D = TypeVar("D", bound=Timed)

Knobs = Mapping[str, Sequence[Parameters]]
"""Parameters that belong together, by name: their choices, each takes more of the die than the one before."""
Between = Callable[[str, Parameters, Parameters], Sequence[Parameters]]
"""The choices of a knob between two neighbours, by its name; they are in order as well."""


def nothing_between(_name: str, _low: Parameters, _high: Parameters) -> Sequence[Parameters]:
    """No choices but those that are named."""
    return ()


def climb(
    start: Parameters,
    knobs: Knobs,
    evaluate: Callable[[Parameters], D],
    fits: Callable[[D], bool],
    between: Between = nothing_between,
) -> list[D]:
    """All settings on the way from the smallest one to where nothing that binds can be raised.

    A raise that does not fit, or that makes its own part no faster, is taken back, and its knob stays where
    it is, or at the last choice in between that fits. Settings no faster than those before are passed, but
    not returned: another part is as slow.
    """
    chosen = {name: choices[0] for name, choices in knobs.items()}
    left = {name: list(choices[1:]) for name, choices in knobs.items()}

    def raised(name: str, choice: Parameters) -> D:
        setting = dict(start)
        for each in ({**chosen, name: choice} if name else chosen).values():
            setting |= each
        return evaluate(setting)

    here = raised("", {})
    found = [here]

    def is_gain(new: D, name: str) -> bool:
        own = new.busy.get(name, 0.0) < here.busy.get(name, 0.0) * (1 - GAIN)
        return own or new.cycles < here.cycles * (1 - GAIN)

    open_ = {name for name, choices in left.items() if choices}
    while open_ and fits(here):
        name = max(sorted(open_), key=lambda n: here.busy.get(n, 0.0))
        choice = left[name].pop(0)
        new = raised(name, choice)
        if not fits(new):
            inner = last_that_fits(
                between(name, chosen[name], choice), lambda c, name=name: raised(name, c), fits
            )
            left[name] = []
            if inner:
                choice, new = inner
        if fits(new) and is_gain(new, name):
            here, chosen[name] = new, choice
            if new.cycles < found[-1].cycles * (1 - GAIN):
                found.append(new)
        else:
            left[name] = []
        if not left[name]:
            open_.discard(name)
    return found


def last_that_fits(
    choices: Sequence[T], evaluate: Callable[[T], D], fits: Callable[[D], bool]
) -> tuple[T, D] | None:
    """The last choice that fits, by bisection: where one does, all before it do."""
    found: tuple[T, D] | None = None
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        tried = evaluate(choices[middle])
        if fits(tried):
            found, low = (choices[middle], tried), middle + 1
        else:
            high = middle
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


__all__ = ["Between", "Candidate", "Knobs", "Parameters", "Timed", "climb", "last_that_fits", "pareto"]
