"""``allo.primitives``: primitives as functions of a schedule."""

from __future__ import annotations

from typing import Any

from ..lazy import lazy
from ..schedule.schedule import Schedule

__getattr__ = lazy(__name__, {"unify": "."})


def to(s: Schedule, target: Any, dst: Any, *args: Any, **kwargs: Any) -> None:
    """`Schedule.to` as a function."""
    s.to(target, dst, *args, **kwargs)
