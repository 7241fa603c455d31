"""``SchedulePrimitive``: a primitive as data, as the original's autoscheduler returns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..schedule.schedule import Schedule


@dataclass(frozen=True)
class SchedulePrimitive:
    """The name and arguments of a primitive; `applyTo` applies it to a schedule."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())

    def applyTo(self, schedule: Schedule) -> Schedule:
        """Apply the primitive in place (the name is the original's); the schedule is returned."""
        getattr(schedule, self.name)(*self.args, **self.kwargs)
        return schedule
