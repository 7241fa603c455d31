"""Kernels with schedules, ready to be composed into a design.

`KERNEL2SCHEDULE` maps a kernel to the function that schedules it: ``s.compose(nn.softmax, ...)`` looks
there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import gemv, nn
from . import systolic as _arrays
from .gemv import *
from .nn import *
from .systolic import *

KERNEL2SCHEDULE: dict[Callable[..., Any], Callable[..., Any]] = {
    **nn.SCHEDULES,
    **_arrays.SCHEDULES,
    **gemv.SCHEDULES,
}

# The name `systolic` is the kernel here, as in Allo; `library.systolic.schedule_systolic` works all the same.
for _name in _arrays.__all__:
    setattr(systolic, _name, getattr(_arrays, _name))
