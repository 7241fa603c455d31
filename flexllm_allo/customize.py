"""``customize``: a kernel becomes a `Schedule`, the object that primitives and builds act on.

The frontend is imported when the first kernel is customised, so that importing the package is quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .lazy import lazy

if TYPE_CHECKING:
    from .frontend.names import Names
    from .lowering import Instantiate, lower, lower_all
    from .schedule.memory import Partition
    from .schedule.schedule import Schedule, wrapped_apply

getsourcefile = inspect.getsourcefile

__getattr__ = lazy(
    __name__,
    {
        "Instantiate": "lowering",
        "Partition": "schedule.memory",
        "Schedule": "schedule.schedule",
        "lower": "lowering",
        "lower_all": "lowering",
        "wrapped_apply": "schedule.schedule",
    },
)


def customize(
    fn: Callable[..., Any] | str,
    verbose: bool = False,
    enable_tensor: bool = False,
    lower_linalg: bool = False,
    global_vars: Names | None = None,
    instantiate: Instantiate | None = None,
    context: object = None,
    typing_rule_set: str = "default",
    unroll: bool = True,
) -> Schedule:
    """Make a schedule of a kernel.

    Args:
        fn: a kernel function, or the source text of one.
        verbose: write the lowered program to the standard output.
        global_vars: names the kernel may use, for source strings.
        instantiate: template arguments, in order (``[int8, 16]``) or by name (``{"T": 16}``).
        context: accepted for Allo's programs, without effect.
        enable_tensor, lower_linalg, typing_rule_set, unroll: see `frontend.options.Options`.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    from .frontend.names import caller_names
    from .frontend.options import Options
    from .lowering import lower
    from .schedule.schedule import Schedule

    del context
    given: Instantiate = () if instantiate is None else instantiate
    options = Options(typing_rule_set, lower_linalg, enable_tensor, unroll)
    frame = inspect.currentframe()
    callers = caller_names(frame.f_back if frame else None, getattr(fn, "__globals__", None))
    program = lower(fn, given, {**callers, **(global_vars or {})}, options)
    if verbose:
        sys.stdout.write(str(program))
    return Schedule(program, given.values() if isinstance(given, Mapping) else given)


__all__ = [
    "Instantiate",
    "Partition",
    "Schedule",
    "customize",
    "getsourcefile",
    "lower",
    "lower_all",
    "wrapped_apply",
]
