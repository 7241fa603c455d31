"""The search for a design: both stages by themselves, then the best pair within the limits of the card."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ..errors import EstimateError, UsageError, did_you_mean
from ..estimate.estimator import estimate
from ..estimate.limits import Demand, check_fits, excesses, utilization
from ..estimate.phases import GREEDY
from ..estimate.power import power
from ..estimate.result import Estimate, Module
from ..estimate.search import Candidate, Knobs, Parameters, climb, pareto
from ..hardware.devices import RESOURCES, Device, Resources
from ..hardware.devices import device as find_device
from ..hybrid import Mode, pack_words, reachable
from ..ir import nodes as ir
from ..models import Model
from ..models.flexllm_model import Decode
from ..schedule.schedule import Schedule
from ..schedules.common import ELEMENTWISE
from .estimate import estimate_preset, open_model
from .flexllm import decode_design
from .preset import SCHEDULES, Preset, StagePreset, preset_stage
from .storage import Storage, store_arrays
from .words import WORD_ROWS, weight_words

Objective = Literal["latency", "throughput", "energy"]
"""latency: of the prompt and all new tokens. throughput: tokens per second of decode. energy: of the run."""

MODES: tuple[Mode, ...] = ("resident", "reconfigured")
"""Where the engines may be: a stage of both tunes them together."""

Name = TypeVar("Name", bound=str)
OnStep = Callable[[int, int | None], None]

STORAGE: Mapping[Mode, Storage] = {"resident": Storage(4096), "reconfigured": Storage(16384, 2048)}
"""Where arrays are: deep ones in UltraRAM, where a card has some; small ones of a large stage in LUTs."""
ROWS = 12
"""Designs in the table."""
TOKENS: Mapping[Mode, tuple[int, ...]] = {"resident": (8, 16), "reconfigured": (16, 32)}
"""Blocks of prefill that are tried; a stage that has the card for itself has room for longer ones."""
DECODE = ("overlapped", "temporal")
"""Schedules that are tried, of prefill with the tokens of a block."""
CYCLES: Mapping[Mode, int] = {"resident": 4, "reconfigured": 1}
"""The longest time a linear layer may take for a block, in times of what the largest needs on its port."""
ENGINE_LANES = (16, 32, 64, 128)
"""Elements at once in front of an engine."""
TERMS = 8
"""Output channels of an engine whose terms are read at once: a word of 512 bits."""
KNOBS = {
    **dict.fromkeys(("linear", "engine"), "linear"),
    **dict.fromkeys(("scores", "mix", "score_rows", "mix_rows", "read_rows"), "attention"),
    "weigh": "softmax",
    **dict.fromkeys((*ELEMENTWISE, "butterfly"), "lanes"),
    **dict.fromkeys(("rms_norm_blocks", "quantize_blocks", "take"), "lanes"),
}
"""The parameters that shape a kernel."""


@dataclass(frozen=True)
class Pair:
    """Both stages on one card.

    Attributes:
        prefill_s, decode_s: seconds of the prompt, and of all new tokens.
        joules: of both.
        used: resources at one time.
    """

    prefill: Candidate
    decode: Candidate
    mode: Mode
    prefill_s: float
    decode_s: float
    joules: float
    used: Resources

    def cost(self, objective: Objective) -> tuple[float, float]:
        """What is to be small; the latency decides between equals."""
        latency = self.prefill_s + self.decode_s
        return {"latency": latency, "throughput": self.decode_s, "energy": self.joules}[objective], latency


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
        mode: where the engines of the stages are: resident or reconfigured (what that takes is not counted).
        name: of the preset.
        on_step: called with (stages estimated, None).

    Raises:
        UsageError: FX703, no such objective or mode, or lengths below 1.
        EstimateError: FX910, even the smallest design does not fit.
    """
    goal = _one_of(objective, get_args(Objective), "objective")
    how = _one_of(mode, MODES, "mode")
    begin = time.monotonic()
    card = find_device(device)
    model = open_model(directory, recipe, prompt, new_tokens)
    search = _Search(model, card, prompt, new_tokens, clock_mhz or card.default_mhz, how, on_step)
    pairs = search.pairs()
    if not pairs:
        search.refuse()
    best = min(pairs, key=lambda pair: pair.cost(goal))
    preset = Preset(
        name=name or f"{card.key}-{objective}",
        description=f"flexllm tune: {objective} of {prompt} tokens in, {new_tokens} out",
        device=card.key,
        model=str(directory),
        recipe=model.weights.recipe.name,
        clock_mhz=search.mhz,
        mode=best.mode,
        **asdict(search.storage),
        max_prompt=search.max_prompt,
        prefill=_stage_preset(best.prefill),
        decode=_stage_preset(best.decode),
    )
    design = f"{directory} ({preset.name})"
    whole = estimate_preset(preset, model, card, prompt, new_tokens, search.mhz, design)
    front = pareto(pairs, lambda p: (p.prefill_s, p.decode_s, search.fullest(p.used)))
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
    steps = tuned.estimate.phases["decode"].tokens if "decode" in tuned.estimate.phases else 0
    return [
        {
            "prefill": _label(pair.prefill),
            "decode": _label(pair.decode),
            "prefill s": f"{pair.prefill_s:.3f}",
            "tokens/s": f"{steps / pair.decode_s:.1f}" if pair.decode_s else "",
            "J": f"{pair.joules:.0f}",
            "fullest": _fullest(pair.used, card),
        }
        for pair in chosen
    ]


def _fullest(used: Resources, card: Device) -> str:
    """The fullest resource, such as ``LUT 65%``."""
    if card.available is None:
        return ""
    share, name = max((share, name) for name, share in utilization(used, card.available).items())
    return f"{RESOURCES[name]} {share:.0%}"


def _label(candidate: Candidate) -> str:
    """The schedule and what differs: tokens x rows, cycles, lanes of attention, softmax and the rest."""
    p = candidate.parameters
    if candidate.schedule == "engine":
        return f"engine {p['ports']}x{p['channels']} {p['split']}/{p['key_ports']}/{p['block']}"
    tokens = f"{p['token_parallel']}x" if "token_parallel" in p else ""
    rest = f"{p['dot_parallel']}/{p['head_parallel']}/{p['lanes']}"
    return f"{candidate.schedule} {tokens}{p['weight_parallel']} in {p['cycles']:,} {rest}"


def _stage_preset(candidate: Candidate) -> StagePreset:
    return StagePreset(schedule=candidate.schedule, **candidate.parameters)


class _Search:
    """Candidates of both stages on a card."""

    def __init__(
        self,
        model: Model,
        card: Device,
        prompt: int,
        new_tokens: int,
        mhz: float,
        mode: Mode,
        on_step: OnStep,
    ) -> None:
        self.model, self.card, self.mhz, self.on_step = model, card, mhz, on_step
        self.mode: Mode = mode
        self.prompt, self.new_tokens, self.tried = prompt, new_tokens, 0
        self._lowered: dict[int, ir.Program] = {}
        self.has_engine = self._has_engine()
        self.found = {"prefill": list(self._prefill()), "decode": list(self._decode())}

    # ------------------------------------------------------------------------------ one stage

    def _prefill(self) -> Iterator[Candidate]:
        wanted = [("spatial", tokens) for tokens in TOKENS[self.mode]]
        for schedule, tokens in (*wanted, ("temporal", TOKENS[self.mode][0])):
            yield from self._climb("prefill", schedule, {"token_parallel": tokens, "macs_per_dsp": 4})

    def _decode(self) -> Iterator[Candidate]:
        if self.has_engine:
            yield from self._climb("decode", "engine", {"channels": WORD_ROWS, "key": 0, "value": 0})
            return
        for schedule in DECODE:
            yield from self._climb("decode", schedule, {"macs_per_dsp": 2})

    def _has_engine(self) -> bool:
        """Whether decode may be a bitstream of its own, on an engine that computes this model."""
        if self.mode != "reconfigured":
            return False
        try:
            Decode(block=ENGINE_LANES[-1], key=0).check(self.model)
        except UsageError:
            return False
        return True

    def _engine_knobs(self) -> Knobs:
        """Ports of weights, up to one for every channel; elements at once in front of the engine."""
        most = _powers(self.card.memory.channels)[-1]
        ports = [(n, split) for n, split in ((most // 2, 1), (most, 1), (most, 2)) if n >= TERMS]
        return {
            "linear": [{"ports": n, "group": TERMS, "split": split} for n, split in ports],
            "attention": [{"key_ports": n} for n in (1, 2)],
            "lanes": [{"block": n, "vector": n // 2} for n in ENGINE_LANES],
        }

    def _climb(self, stage: str, schedule: str, start: Parameters) -> list[Candidate]:
        is_engine = schedule == "engine"
        knobs = self._engine_knobs() if is_engine else self._knobs(stage, start.get("token_parallel", 1))

        def evaluate(parameters: Parameters) -> Candidate:
            self.tried += 1
            self.on_step(self.tried, None)
            return candidate(self, stage, StagePreset(schedule=schedule, **parameters))

        return climb(start, knobs, evaluate, lambda c: self._fits(c.resources))

    def program(self, stage: str, tokens: int) -> ir.Program:
        """The unscheduled program of a stage."""
        block = tokens if stage == "prefill" else TOKENS[self.mode][0]
        if block not in self._lowered:
            self._lowered[block] = self.model.shortened(self.max_prompt).program(block)
        return reachable(self._lowered[block], stage)

    @property
    def middle(self) -> int:
        """The position that stands for all of an answer: what a token costs is a line."""
        return self.prompt + (self.new_tokens - 1) // 2

    def _knobs(self, stage: str, tokens: int) -> Knobs:
        """The choices of a stage: no more rows at once than a port to memory could feed."""
        config = self.model.config
        largest = config.hidden_size * config.intermediate_size
        rows = max(n for n in _powers(WORD_ROWS) if n <= 2 * self._fed())
        lanes = [n for n in _powers(16) if n >= max(2, tokens // 4) or stage == "decode"]
        group = config.num_attention_heads // config.num_key_value_heads
        if stage == "prefill":  # layers work at the same time: all may take as long as the largest, or less
            longest = largest // rows * 17 // 16 * CYCLES[self.mode]
            return {
                "linear": [
                    {"weight_parallel": rows, "cycles": longest // n} for n in _powers(4 * CYCLES[self.mode])
                ],
                "attention": [
                    {"dot_parallel": config.head_dim, "head_parallel": n} for n in _divisors(group, 1)
                ],
                "lanes": [{"lanes": n} for n in lanes[::2]],
            }
        dots = _divisors(config.head_dim, min(config.head_dim, 16))
        return {
            "linear": [{"weight_parallel": n, "cycles": 0} for n in _powers(rows)[-3:]],
            "attention": [{"dot_parallel": n} for n in dots[::-2][::-1]],
            "softmax": [{"head_parallel": n} for n in _divisors(group, 1)],
            "lanes": [{"lanes": n} for n in lanes[::2]],
        }

    def _fed(self) -> float:
        """Weights per cycle that a port to memory delivers at most: what the roofline leaves of the lanes."""
        fmt, memory = self.model.weights.recipe.weight, self.card.memory
        if fmt is None or memory.channel_gb_per_s is None:
            return inf
        return memory.channel_gb_per_s * 1e3 * memory.efficiency / self.mhz * 8 / fmt.bits

    @property
    def storage(self) -> Storage:
        has_uram = self.card.available is not None and self.card.available.uram > 0
        return STORAGE[self.mode] if has_uram else replace(STORAGE[self.mode], uram_depth=0)

    @property
    def max_prompt(self) -> int:
        """A prefill by itself needs to hold no more than the prompt."""
        return self.prompt if self.has_engine else 0

    def _fits(self, used: Resources) -> bool:
        return not excesses(Demand([Module("design", used)]), self.card)

    # ------------------------------------------------------------------------------ both

    def pairs(self) -> list[Pair]:
        """All pairs that fit."""
        wanted = product(self._best("prefill"), self._best("decode"))
        found = [self._pair(first, second) for first, second in wanted]
        return [pair for pair in found if self._fits(pair.used)]

    def _best(self, stage: str) -> list[Candidate]:
        return pareto(self.found[stage], lambda c: (c.cycles, *map(float, c.resources.counts())))

    def _pair(self, first: Candidate, second: Candidate) -> Pair:
        both = first.resources + second.resources - first.ports
        seconds = [first.cycles / self.mhz / 1e6, second.cycles / self.mhz / 1e6 * (self.new_tokens - 1)]
        moved = [first.bytes, second.bytes * (self.new_tokens - 1)]
        each = [both, both] if self.mode == "resident" else [first.resources, second.resources]
        try:
            watts = [
                power(self.card, used, self.mhz, size / s / 1e9 if s else 0.0).total_w
                for used, size, s in zip(each, moved, seconds, strict=True)
            ]
        except EstimateError:  # nothing is known of the power of the card
            watts = [0.0, 0.0]
        joules = sum(w * s for w, s in zip(watts, seconds, strict=True))
        return Pair(first, second, self.mode, seconds[0], seconds[1], joules, _most(each))

    def fullest(self, used: Resources) -> float:
        """The share of the fullest resource."""
        return max(utilization(used, self.card.available).values()) if self.card.available else 0.0

    def refuse(self) -> None:
        """Say by how much the smallest design does not fit."""
        smallest = [min(self.found[stage], key=lambda c: self.fullest(c.resources)) for stage in SCHEDULES]
        both = smallest[0].resources + smallest[1].resources - smallest[0].ports
        check_fits(Demand([Module("the smallest design", both)]), self.card)


def candidate(search: _Search, stage: str, chosen: StagePreset) -> Candidate:
    """A stage by itself: what the prompt, or the token in the middle of an answer, costs."""
    s, card = _scheduled(search, stage, chosen), search.card
    store_arrays(s, search.storage)
    scalars: dict[str, Any] = {"n_prompt": search.prompt} if stage == "prefill" else {"pos": search.middle}
    scalars |= GREEDY
    found = estimate(s.program, card.key, clock_mhz=search.mhz, **scalars)
    return Candidate(
        chosen.schedule,
        chosen.parameters,
        cycles=found.main.cycles,
        bytes=found.main.bytes,
        resources=found.resources,
        ports=found.modules[-1].resources,
        busy=_busy(found, {f.name: f.origin for f in s.program.functions}),
        binds=found.binds,
    )


def _scheduled(search: _Search, stage: str, chosen: StagePreset) -> Schedule:
    if chosen.schedule == "engine":
        return decode_design(search.model, Decode(**chosen.parameters))
    made = preset_stage(stage, chosen)
    s = Schedule(search.program(stage, made.token_parallel))
    ports = {b.name for b in s.top_func.params}
    for name, words in weight_words(search.model, WORD_ROWS).items():
        if name in ports:
            pack_words(s, name, words)
    made.apply(s, [f.name for f in s.program.functions])
    return s


def _busy(found: Estimate, origins: Mapping[str, str]) -> dict[str, float]:
    """The cycles of the slowest kernel that each knob shapes; those of attention take turns."""
    copies = Counter(module.name.partition("#")[0] for module in found.modules)
    busy: dict[str, float] = {}
    for row in found.stages:
        knob = KNOBS.get(origins.get(row.name, ""), "")
        cycles = row.cycles / max(1, copies[row.name])
        busy[knob] = busy.get(knob, 0.0) + cycles if knob == "attention" else max(busy.get(knob, 0.0), cycles)
    return busy


def _powers(most: int) -> list[int]:
    return [1 << n for n in range(most.bit_length())]


def _divisors(number: int, least: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0 and (n >= least or n == number)]


def _most(several: Sequence[Resources]) -> Resources:
    return Resources(*(max(column) for column in zip(*(r.counts() for r in several), strict=True)))


__all__ = ["Objective", "Pair", "Tuned", "tune", "tune_rows"]
