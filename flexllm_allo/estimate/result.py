"""What an estimate says. Every figure here is estimated; nothing of it was measured or synthesized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

from ..errors import Span
from ..hardware.devices import Resources
from .fit import Fit


@dataclass(frozen=True, slots=True)
class LoopTiming:
    """A row of the per-loop table.

    Attributes:
        loop: its name, as a schedule calls it.
        trips: iterations of one run of it.
        ii: cycles from one iteration to the next; None for a loop that is not pipelined.
        depth: cycles of one iteration.
        cycles: of all its runs in its stage.
        reason: why the II, or the latency, is what it is.
        kernel: the line of the kernel it stands on.
        schedule: the line of the primitive that pipelined it, where one did.
    """

    loop: str
    trips: int
    ii: int | None
    depth: int
    cycles: int
    reason: str
    kernel: Span
    schedule: Span | None = None


@dataclass(frozen=True, slots=True)
class StageTiming:
    """One bar of the timeline: what a phase spends in one function instance.

    Attributes:
        name: of the function instance.
        phase: the key of `Estimate.phases` it belongs to.
        start: the cycle of the phase at which its first run begins.
        end: the cycle of the phase at which its last run ends.
        cycles: it is busy; less than ``end - start`` where it waits or takes turns.
        kernel: the line that defines its kernel.
        schedule: the line of the schedule that was applied to it, where there is one.
        loops: the per-loop table.
    """

    name: str
    phase: str
    start: int
    end: int
    cycles: int
    kernel: Span
    schedule: Span | None = None
    loops: tuple[LoopTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """One function called from outside, from its start to its end: ``prefill``, ``decode``, or a kernel.

    Attributes:
        cycles: of all its calls.
        seconds: the same by the clock.
        operations: arithmetic on data, a multiply-accumulate counting as two.
        bytes: moved through off-chip memory.
        tokens: read by a prefill, made by a decode; 0 for a kernel of no tokens.
    """

    cycles: int
    seconds: float
    operations: int
    bytes: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Module:
    """What one function instance takes on the die. `resources.lut` counts those of `lutram` too."""

    name: str
    resources: Resources
    slr: str | None = None
    lutram: int = 0


@dataclass(frozen=True, slots=True)
class ChannelTraffic:
    """A channel of off-chip memory while the phase that uses it most runs.

    Attributes:
        name: such as ``HBM[3]``.
        gb_per_s: what the design moves.
        limit_gb_per_s: what its port, or the channel at its efficiency, gives at most.
        peak_gb_per_s: what the data sheet says.
    """

    name: str
    gb_per_s: float
    limit_gb_per_s: float
    peak_gb_per_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The whole answer.

    Attributes:
        design: its name.
        device: the short name of the card.
        clock_mhz: assumed.
        phases: by name; a model has ``prefill`` and ``decode``.
        modules: the function instances, each once.
        channels: of the memories it uses.
        power_w: while it decodes, or runs.
        binds: the one thing that limits it, in words.
        stages: in the order of the timeline.
        notes: assumptions a reader should know.
        fit: whether the device holds it.
    """

    design: str
    device: str
    clock_mhz: float
    phases: Mapping[str, Phase]
    modules: tuple[Module, ...]
    utilization: Mapping[str, float]
    channels: tuple[ChannelTraffic, ...]
    power_w: float | None
    binds: str
    stages: tuple[StageTiming, ...] = ()
    notes: tuple[str, ...] = field(default=())
    fit: Fit = field(default_factory=Fit)

    @property
    def prefill_s(self) -> float | None:
        return self.phases["prefill"].seconds if "prefill" in self.phases else None

    @property
    def decode_s(self) -> float | None:
        return self.phases["decode"].seconds if "decode" in self.phases else None

    @property
    def main(self) -> Phase:
        """The phase that figures without a phase are about: the decode, or the only one there is or runs."""
        decode = self.phases.get("decode")
        return decode if decode and decode.cycles else next(iter(self.phases.values()))

    @property
    def cycles(self) -> int:
        return sum(phase.cycles for phase in self.phases.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens made per second of decode."""
        phase = self.phases.get("decode")
        return phase.tokens / phase.seconds if phase and phase.seconds else None

    @property
    def energy_per_token_j(self) -> float | None:
        rate = self.tokens_per_second
        return self.power_w / rate if rate and self.power_w is not None else None

    @property
    def bandwidth_gbs(self) -> float:
        """Mean over the main phase, all channels together."""
        return self.main.bytes / self.main.seconds / 1e9 if self.main.seconds else 0.0

    @property
    def resources(self) -> Resources:
        names = [f.name for f in fields(Resources)]
        return Resources(**{n: sum(getattr(m.resources, n) for m in self.modules) for n in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``flexllm estimate --json`` writes it; null where a device has none of it."""
        return {
            "design": self.design,
            "device": self.device,
            "clock_mhz": self.clock_mhz,
            "basis": "estimated",
            "prefill_s": self.prefill_s,
            "decode_s": self.decode_s,
            "tokens_per_second": self.tokens_per_second,
            "cycles": self.cycles,
            "resources": _plain(self.resources),
            "utilization": {n: share if isfinite(share) else None for n, share in self.utilization.items()},
            "bandwidth_gbs": self.bandwidth_gbs,
            "power_w": self.power_w,
            "energy_per_token_j": self.energy_per_token_j,
            "binds": self.binds,
            "stages": [
                {"share": stage.cycles / max(1, self.phases[stage.phase].cycles), **_plain(stage)}
                for stage in self.stages
            ],
            "phases": {name: _plain(phase) for name, phase in self.phases.items()},
            "modules": [_plain(module) for module in self.modules],
            "channels": [_plain(channel) for channel in self.channels],
            "notes": list(self.notes),
            "fit": self.fit.to_dict(),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries; a span as ``file:line:column``."""
    if isinstance(value, Span):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value
