"""`Stage`: the schedules of one stage of inference, as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from .schedule import Schedule


@dataclass(frozen=True)
class Stage:
    """What a hybrid top needs to know of prefill or decode.

    Attributes:
        name: how reports call it.
        token_parallel: tokens in a block; 1 for decode.
        kernels: kernel name -> the function that schedules an instance of it.
        default: schedules the kernels that are not listed; without it they stay as they are written.
    """

    name: str
    token_parallel: int = 1
    kernels: Mapping[str, Callable[[Schedule], None]] = field(default_factory=lambda: {})
    default: Callable[[Schedule], None] | None = None

    def apply(self, schedule: Schedule, functions: Iterable[str]) -> None:
        """Schedule those functions (instances of kernels, callees first) of a program."""
        for name in functions:
            origin = schedule.function(name).top_func.origin
            chosen = self.kernels.get(origin, self.default)
            if chosen is not None:
                schedule.function(name).apply(chosen)
