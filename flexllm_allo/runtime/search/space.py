"""What a search may choose: schedules of both stages on a card, and numbers for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from ...errors import UsageError
from ...estimate.search import Between, Knobs, Parameters, nothing_between
from ...hardware.devices import Device
from ...hybrid import Mode
from ...models import Model
from ...models.engine_model import Decode
from ..preset import PLAIN, Preset, StagePreset
from ..storage import Storage
from ..words import WORD_ROWS

STORAGE: Mapping[Mode, Storage] = {
    "resident": Storage(4096), "shared": Storage(4096), "reconfigured": Storage(16384, 2048)
}  # fmt: skip
"""Where arrays are: deep ones in UltraRAM, where a card has some; small ones of a large stage in LUTs."""
TOKENS: Mapping[Mode, tuple[int, ...]] = {"resident": (8, 16), "shared": (4, 8), "reconfigured": (16, 32)}
"""Blocks of prefill that are tried: longer ones where a stage has the card for itself, shorter ones where
a block of decode holds one token."""
CYCLES: Mapping[Mode, int] = {"resident": 4, "shared": 4, "reconfigured": 1}
"""The longest time a linear layer may take for a block, in times of what the largest needs on its port."""
ALLOWED = 17 / 16
"""What a layer may take, in times of what its products take: its last sums leave after them."""
DECODE = ("overlapped", "temporal")
"""Schedules of decode that are tried."""
ENGINE_LANES = (16, 32, 64, 128)
"""Elements at once in front of an engine."""
TERMS = 8
"""Output channels of an engine whose terms are read at once: a word of 512 bits."""


@dataclass(frozen=True)
class Climb:
    """A schedule with all its settings.

    Attributes:
        start: parameters that stay.
        knobs: those that are raised.
        least_cycles: of the prompt, that no setting goes below.
        between: choices of a knob that are tried where the next one does not fit.
    """

    schedule: str
    start: Parameters
    knobs: Knobs
    least_cycles: float = 0.0
    between: Between = nothing_between


@dataclass(frozen=True)
class Space:
    """The designs of a search.

    Attributes:
        prompt, new_tokens: lengths of the run.
        mode: where the engines of the stages are.
    """

    model: Model
    card: Device
    prompt: int
    new_tokens: int
    mhz: float
    mode: Mode

    def preset(self, prefill: StagePreset | None = None, decode: StagePreset | None = None) -> Preset:
        """A preset for the card with these stages, the others as plain as can be."""
        plain = StagePreset(schedule="engine") if self.has_engine else PLAIN
        return Preset(
            name="tried",
            device=self.card.key,
            model=self.model.checkpoint.source,
            recipe=self.model.weights.recipe.name,
            clock_mhz=self.mhz,
            mode=self.mode,
            uram_depth=self.storage.uram_depth,
            lutram_bits=self.storage.lutram_bits,
            max_prompt=self.prompt if self.has_engine else 0,  # a prefill by itself holds no more than that
            prefill=prefill or PLAIN,
            decode=decode or plain,
        )

    @property
    def storage(self) -> Storage:
        has_uram = self.card.available is not None and self.card.available.uram > 0
        return STORAGE[self.mode] if has_uram else replace(STORAGE[self.mode], uram_depth=0)

    @property
    def middle(self) -> int:
        """The position that stands for all of an answer: what a token costs is a line."""
        return self.prompt + (self.new_tokens - 1) // 2

    @cached_property
    def has_engine(self) -> bool:
        """Whether decode may be a bitstream of its own, on an engine that computes this model."""
        if self.mode != "reconfigured":
            return False
        try:
            Decode(**_engine_lanes(ENGINE_LANES[-1]), key=0).check(self.model)
        except UsageError:
            return False
        return True

    # ------------------------------------------------------------------------------ prefill

    def prefill(self) -> Iterator[Climb]:
        """The longest blocks first: they are the fastest, and what is slower need not be tried."""
        tokens = TOKENS[self.mode]
        for schedule, block in (*(("spatial", n) for n in reversed(tokens)), ("temporal", tokens[0])):
            start = {"token_parallel": block, "macs_per_dsp": 4}
            least = self._least_cycles(schedule, block)
            yield Climb(schedule, start, self._prefill_knobs(block), least, self._budgets_between)

    def _prefill_knobs(self, tokens: int) -> Knobs:
        """Layers work at the same time: all may take as long as the largest, or less."""
        head_dim = self.model.config.head_dim
        longest = self._allowed(self._largest // self._rows) * CYCLES[self.mode]
        lanes = [n for n in _powers(16) if n >= max(2, tokens // 4)]
        return {
            "linear": [_budget(self._rows, longest // n) for n in _powers(4 * CYCLES[self.mode])],
            "attention": [{"dot_parallel": head_dim, "head_parallel": n} for n in _divisors(self._group, 1)],
            "lanes": [{"lanes": n} for n in lanes[::2]],
        }

    def _budgets_between(self, knob: str, low: Parameters, high: Parameters) -> Sequence[Parameters]:
        """Cycles for linear layers: all that any of them can take on some number of rows."""
        if knob != "linear":
            return ()
        times = {
            self._allowed(rows * columns // n)
            for rows, columns in self._layers
            for n in range(1, self._rows + 1)
            if rows % n == 0
        }
        between = sorted((t for t in times if high["cycles"] < t < low["cycles"]), reverse=True)
        return [_budget(self._rows, cycles) for cycles in between]

    def _allowed(self, cycles: int) -> int:
        return int(cycles * ALLOWED)

    def _least_cycles(self, schedule: str, tokens: int) -> float:
        """What a prompt takes at least: every block meets all rows of a weight, `_rows` of them in a cycle.

        Operators that work at the same time take as long as the largest layer, others as long as all.
        """
        weights = [rows * columns for rows, columns in self._layers]
        each = sum(weights) if schedule == "temporal" else max(weights)
        blocks = -(-self.prompt // tokens)
        return blocks * self.model.config.num_hidden_layers * each / self._rows

    @property
    def _layers(self) -> list[tuple[int, int]]:
        """Rows and columns of the linear layers that any model has: queries, keys, output, and the MLP's."""
        c = self.model.config
        heads, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        wide, narrow = c.intermediate_size, c.hidden_size
        return [(heads, narrow), (kv, narrow), (narrow, heads), (wide, narrow), (narrow, wide)]

    @property
    def _largest(self) -> int:
        return self.model.config.hidden_size * self.model.config.intermediate_size

    @property
    def _group(self) -> int:
        """Query heads of a key."""
        return self.model.config.num_attention_heads // self.model.config.num_key_value_heads

    @property
    def _rows(self) -> int:
        """Rows of a weight at once: no more than a port to memory could feed."""
        return max(n for n in _powers(WORD_ROWS) if n <= 2 * self._fed())

    def _fed(self) -> float:
        """Weights per cycle that a port to memory delivers at most: what the roofline leaves of the lanes."""
        fmt, memory = self.model.weights.recipe.weight, self.card.memory
        if fmt is None or memory.channel_gb_per_s is None:
            return inf
        return memory.channel_gb_per_s * 1e3 * memory.efficiency / self.mhz * 8 / fmt.bits

    # ------------------------------------------------------------------------------ decode

    def decode(self) -> Iterator[Climb]:
        """On an engine where there can be one."""
        if self.has_engine:
            yield Climb("engine", {"channels": WORD_ROWS, "key": 0, "value": 0}, self._engine_knobs())
            return
        for schedule in DECODE:
            yield Climb(schedule, {"macs_per_dsp": 2}, self._decode_knobs())

    def _engine_knobs(self) -> Knobs:
        """Ports of weights, up to one for every channel; elements at once in front of the engine."""
        most = _powers(self.card.memory.channels)[-1]
        ports = [(n, split) for n, split in ((most // 2, 1), (most, 1), (most, 2)) if n >= TERMS]
        return {
            "linear": [{"ports": n, "group": TERMS, "split": split} for n, split in ports],
            "attention": [{"key_ports": n} for n in (1, 2)],
            "lanes": [_engine_lanes(n) for n in ENGINE_LANES],
        }

    def _decode_knobs(self) -> Knobs:
        head_dim = self.model.config.head_dim
        dots = _divisors(head_dim, min(head_dim, 16))
        return {
            "linear": [_budget(n, 0) for n in _powers(self._rows)[-3:]],
            "attention": [{"dot_parallel": n} for n in dots[::-2][::-1]],
            "softmax": [{"head_parallel": n} for n in _divisors(self._group, 1)],
            "lanes": [{"lanes": n} for n in _powers(16)[::2]],
        }

    def beside(self, chosen: StagePreset) -> StagePreset:
        """Decode on the engines of a prefill: what works on one token in either stage, such as the head."""
        own = {name: chosen.parameters[name] for name in ("weight_parallel", "dot_parallel", "lanes")}
        return StagePreset.model_validate({"schedule": "temporal", "macs_per_dsp": 2, **own})


def _budget(rows: int, cycles: int) -> Parameters:
    return {"weight_parallel": rows, "cycles": cycles}


def _engine_lanes(block: int) -> dict[str, int]:
    """Elements at once in front of an engine, and in other operators."""
    return {"block": block, "vector": block // 2}


def _powers(most: int) -> list[int]:
    return [1 << n for n in range(most.bit_length())]


def _divisors(number: int, least: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0 and (n >= least or n == number)]


__all__ = ["Climb", "Space"]
