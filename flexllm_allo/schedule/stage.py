"""`Stage`: the schedules of one stage of inference, as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ..errors import ScheduleError
from .names import find_loop
from .nests import extent
from .schedule import Schedule

Lanes = Mapping[str, int]
"""Loops of a kernel and how many of their iterations run side by side, 0 for all; the rest is pipelined.

Of a nest, such as ``"t j"``, the innermost loop has as many of them as it can, then the next one.
"""

Schedules = Callable[[Schedule], None]


@dataclass(frozen=True)
class Stage:
    """What a hybrid top needs to know of prefill or decode.

    Attributes:
        name: how reports call it.
        token_parallel: tokens in a block; 1 for decode.
        kernels: kernel name -> the function that schedules an instance of it, or its `Lanes`.
        default: schedules the kernels that are not listed; without it they stay as they are written.
    """

    name: str
    token_parallel: int = 1
    kernels: Mapping[str, Schedules | Lanes] = field(default_factory=lambda: {})
    default: Schedules | None = None

    def apply(self, schedule: Schedule, functions: Iterable[str]) -> None:
        """Schedule those functions (instances of kernels, callees first) of a program."""
        for name in functions:
            origin = schedule.function(name).top_func.origin
            chosen = self.kernels.get(origin, self.default)
            if isinstance(chosen, Mapping):
                chosen = partial(vectorized, lanes=chosen)
            if chosen is not None:
                schedule.function(name).apply(chosen)


def vectorized(s: Schedule, lanes: Lanes, pairs: str = "", flat: str = "") -> None:
    """Run iterations of those loops side by side and pipeline what is left.

    Args:
        pairs: the loop, an innermost one, whose lanes share multipliers two by two where their types allow.
        flat: the loop that becomes one nest, and so one pipeline, with those inside where it can.
    """
    for nest, count in lanes.items():
        for loop in reversed(nest.split()):
            size = extent(find_loop(s.program, s.top_func_name, loop).loop) or 1
            around = s.vectorize(loop, count)
            count = count and max(1, count // size)
            if loop == pairs:
                pairs = f"{loop}.inner" if around else loop
    if pairs:
        with suppress(ScheduleError):
            s.pack_products(pairs)
    if flat:
        with suppress(ScheduleError):
            s.flatten(flat)
    s.pipeline()
