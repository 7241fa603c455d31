"""The search for a design: both stages by themselves, then the best pair within the limits of the card."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar, get_args

from ...errors import UsageError, did_you_mean
from ...estimate.limits import Demand, check_fits
from ...estimate.need import fullest, holds
from ...estimate.result import Estimate, Module
from ...estimate.search import Candidate, Parameters, climb, pareto
from ...hardware.devices import RESOURCES, Resources, check_clock
from ...hardware.devices import device as find_device
from ...hybrid import Mode
from ..estimate import estimate_preset, open_model
from ..preset import Preset, StagePreset
from .candidates import candidate, shared_candidates
from .pairs import Objective, Pair, pair
from .space import Climb, Space

Name = TypeVar("Name", bound=str)
OnStep = Callable[[int, int | None], None]

ROWS = 12
"""Designs in the table."""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        preset: the best design.
        estimate: of all of it.
        front: designs that none beats in prefill, decode and size, the fastest prefill first.
        tried: stages that were estimated.
        seconds: the search took.
    """

    preset: Preset
    estimate: Estimate
    front: list[Pair]
    tried: int
    seconds: float


def tune(
    directory: Path,
    device: str = "u280",
    prompt: int = 1024,
    new_tokens: int = 1024,
    *,
    objective: str = "latency",
    mode: str = "resident",
    recipe: str | None = None,
    clock_mhz: float | None = None,
    name: str = "",
    on_step: OnStep = lambda _done, _total: None,
) -> Tuned:
    """The best parameters of both stages for a card.

    Args:
        directory: a checkpoint, or the name of an architecture.
        prompt, new_tokens: lengths of the run.
        objective: what is to be small.
        mode: where the engines of the stages are: resident, shared, or reconfigured (what that takes is not
            counted).
        name: of the preset.
        on_step: called with (stages estimated, None).

    Raises:
        UsageError: FX703, no such objective, mode or clock, or lengths below 1.
        EstimateError: FX910, even the smallest design does not fit.
    """
    goal = _one_of(objective, get_args(Objective), "objective")
    how = _one_of(mode, get_args(Mode), "mode")
    check_clock(clock_mhz)
    begin = time.monotonic()
    card = find_device(device)
    model = open_model(directory, recipe, prompt, new_tokens)
    space = Space(model, card, prompt, new_tokens, clock_mhz or card.default_mhz, how)
    search = Search(space, goal, on_step)
    pairs = search.pairs()
    best = min(pairs, key=lambda found: found.cost(goal))
    known = {
        "name": name or f"{card.key}-{objective}",
        "description": f"flexllm tune: {objective} of {prompt} tokens in, {new_tokens} out",
        "model": str(directory),
    }
    preset = space.preset(_stage(best.prefill), _stage(best.decode)).model_copy(update=known)
    design = f"{directory} ({preset.name})"
    whole = estimate_preset(preset, model, card, prompt, new_tokens, space.mhz, design)
    front = pareto(pairs, lambda p: (p.prefill_s, p.decode_s, fullest(card, p.used)[0]))
    return Tuned(
        preset,
        whole,
        sorted(front, key=lambda p: (p.prefill_s, p.decode_s)),
        search.tried,
        time.monotonic() - begin,
    )


def _one_of(text: str, known: Sequence[Name], what: str) -> Name:
    for value in known:
        if value == text:
            return value
    raise UsageError("FX703", f'there is no {what} "{text}"', hint=did_you_mean(text, known))


def tune_rows(tuned: Tuned) -> list[dict[str, str]]:
    """The front as a table, at most `ROWS` of it."""
    front = tuned.front
    chosen = front if len(front) <= ROWS else [front[i * (len(front) - 1) // (ROWS - 1)] for i in range(ROWS)]
    card = find_device(tuned.preset.device)
    return [
        {
            "prefill": _label(each.prefill),
            "decode": _label(each.decode),
            "prefill s": f"{each.prefill_s:.3f}",
            "tokens/s": f"{each.steps / each.decode_s:.1f}" if each.decode_s else "",
            "J": f"{each.joules:.0f}",
            "fullest": "{1} {0:.0%}".format(*_named(fullest(card, each.used))),
        }
        for each in chosen
    ]


def _named(share: tuple[float, str]) -> tuple[float, str]:
    """The fullest resource as it is called, such as LUT."""
    return share[0], RESOURCES.get(share[1], "")


def _label(candidate: Candidate) -> str:
    """The schedule and what differs: tokens x rows, cycles, lanes of attention, softmax and the rest."""
    p = candidate.parameters
    if candidate.schedule == "engine":
        return f"engine {p['ports']}x{p['channels']} {p['split']}/{p['key_ports']}/{p['block']}"
    tokens = f"{p['token_parallel']}x" if "token_parallel" in p else ""
    budget = f" in {p['cycles']:,}" if "cycles" in p else ""
    rest = "/".join(str(p[name]) for name in ("dot_parallel", "head_parallel", "lanes") if name in p)
    return f"{candidate.schedule} {tokens}{p['weight_parallel']}{budget} {rest}"


def _stage(candidate: Candidate) -> StagePreset:
    return StagePreset(schedule=candidate.schedule, **candidate.parameters)


class Search:
    """Estimates of the designs of a space.

    Args:
        goal: what is to be small.
    """

    def __init__(self, space: Space, goal: Objective, on_step: OnStep) -> None:
        self.space, self.goal, self.on_step, self.tried = space, goal, on_step, 0
        self.found: dict[str, list[Candidate]] = {"prefill": [], "decode": []}

    def pairs(self) -> list[Pair]:
        """All pairs of stages that fit together, of those that nothing beats.

        Raises:
            EstimateError: FX910, not even the smallest do.
        """
        made = self._shared() if self.space.mode == "shared" else self._apart()
        fitting = [each for each in made if self._fits(each.used)]
        if not fitting:
            smallest = min(made, key=lambda each: fullest(self.space.card, each.used))
            check_fits(Demand([Module("the smallest design", smallest.used)]), self.space.card)
        return fitting

    def _apart(self) -> list[Pair]:
        """Every stage with engines of its own: each is searched by itself."""
        for way in self.space.decode():
            self.found["decode"] += self._climb("decode", way)
        for way in self.space.prefill():
            if not self._is_beaten(way):
                self.found["prefill"] += self._climb("prefill", way)
        return [pair(self.space, *both) for both in product(self._best("prefill"), self._best("decode"))]

    def _is_beaten(self, way: Climb) -> bool:
        """Whether no setting of a prefill can be in the best design, or in the table.

        Where stages take turns, a prefill that is faster than the bound of this one, and no fuller than any
        decode, makes a better pair with every decode: faster, and as full as the decode at most. (That tells
        nothing of energy.)
        """
        if self.space.mode != "reconfigured" or self.goal == "energy":
            return False
        card = self.space.card
        room = min(fullest(card, decode.resources)[0] for decode in self.found["decode"])
        return any(
            other.cycles < way.least_cycles
            and fullest(card, other.resources)[0] <= room
            and self._fits(other.resources)
            for other in self.found["prefill"]
        )

    def _climb(self, stage: str, way: Climb) -> list[Candidate]:
        space = self.space
        scalars = {"n_prompt": space.prompt} if stage == "prefill" else {"pos": space.middle}

        def evaluate(parameters: Parameters) -> Candidate:
            chosen = StagePreset(schedule=way.schedule, **parameters)
            preset = space.preset(prefill=chosen) if stage == "prefill" else space.preset(decode=chosen)
            self._step()
            return candidate(preset, space.model, stage, space.card, space.mhz, scalars)

        return climb(way.start, way.knobs, evaluate, lambda c: self._fits(c.resources), way.between)

    def _shared(self) -> list[Pair]:
        """Decode on the engines of prefill: what makes the whole run faster is raised."""
        space, found = self.space, list[Pair]()
        for way in space.prefill():

            def evaluate(parameters: Parameters, way: Climb = way) -> Pair:
                chosen = StagePreset(schedule=way.schedule, **parameters)
                preset = space.preset(chosen, space.beside(chosen))
                self._step()
                made = shared_candidates(
                    preset, space.model, space.card, space.mhz, space.prompt, space.middle
                )
                return pair(space, *made)

            found += climb(way.start, way.knobs, evaluate, lambda p: self._fits(p.used), way.between)
        return found

    def _step(self) -> None:
        self.tried += 1
        self.on_step(self.tried, None)

    def _best(self, stage: str) -> Iterable[Candidate]:
        return pareto(self.found[stage], lambda c: (c.cycles, *map(float, c.resources.counts())))

    def _fits(self, used: Resources) -> bool:
        return holds(self.space.card, used)


__all__ = ["Objective", "Pair", "Tuned", "tune", "tune_rows"]
