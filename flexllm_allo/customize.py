"""``customize``: a kernel becomes a `Schedule`, the object that primitives and builds act on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .errors import UNKNOWN
from .frontend.names import Names, caller_names
from .frontend.program import ProgramBuilder
from .ir import nodes as ir
from .ir.verify import verify
from .schedule.schedule import Schedule


def lower(
    fn: Callable[..., Any] | str,
    instantiate: Sequence[Any] = (),
    names: Names | None = None,
) -> ir.Program:
    """The program of a kernel and everything it calls.

    Args:
        fn: a kernel function, or the source text of one (the first function in it).
        instantiate: template arguments in order; a string is an instance id.
        names: what the kernel may use by name beyond its own globals and closure.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    builder = ProgramBuilder(names or {})
    if isinstance(fn, str):
        top = builder.from_string(fn, names or {}, instantiate)
    else:
        top = builder.instantiate(fn, instantiate, [], UNKNOWN)
    return verify(ir.Program(tuple(builder.functions), top.name))


def customize(
    fn: Callable[..., Any] | str,
    *,
    instantiate: Sequence[Any] = (),
    global_vars: Names | None = None,
) -> Schedule:
    """Make a schedule of a kernel.

    Args:
        fn: a kernel function, or the source text of one.
        instantiate: template arguments in order, e.g. ``[int8, 16]``.
        global_vars: names the kernel may use, for source strings.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    frame = inspect.currentframe()
    callers = caller_names(frame.f_back if frame else None)
    return Schedule(lower(fn, instantiate, {**callers, **(global_vars or {})}))
