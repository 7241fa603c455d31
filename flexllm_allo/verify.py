"""``allo.verify``: whether two schedules compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .schedule.schedule import Schedule

RUNS = 3


def verify(schedule_a: Schedule, schedule_b: Schedule, runs: int = RUNS) -> bool:
    """Whether two schedules compute the same results from the same arguments.

    Both must have the same signature.  Schedules of one kernel with equal traces are equal by
    construction; others are run on random arguments, and results and arguments written in place are
    compared bit for bit.  A True is evidence, not proof: it says that no difference was found.

    Args:
        runs: how many sets of random arguments are tried.
    """
    from .equivalence import equivalent  # loaded when it is used: it needs the IR and the backends

    return equivalent(schedule_a, schedule_b, runs)
