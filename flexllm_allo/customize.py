"""``customize``: a kernel becomes a `Schedule`, the object that primitives and builds act on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import UNKNOWN
from .frontend.names import Names, caller_names
from .frontend.program import ProgramBuilder
from .ir import nodes as ir
from .ir.verify import verify
from .schedule.schedule import Schedule


Instantiate = Sequence[Any] | Mapping[str, Any]


def lower(
    fn: Callable[..., Any] | str, instantiate: Instantiate = (), names: Names | None = None
) -> ir.Program:
    """The program of a kernel and everything it calls.

    Args:
        fn: a kernel function, or the source text of one (the first function in it).
        instantiate: template arguments, in order or by name; a string in a list is an instance id.
        names: what the kernel may use by name beyond its own globals and closure.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    return lower_all([(fn, instantiate)], names)


def lower_all(
    tops: Sequence[tuple[Callable[..., Any] | str, Instantiate]], names: Names | None = None
) -> ir.Program:
    """One program for several kernels that share the instances they call; the first is the top."""
    builder = ProgramBuilder(names or {})
    made = [
        builder.from_string(fn, names or {}, instantiate)
        if isinstance(fn, str)
        else builder.instantiate(fn, instantiate, [], UNKNOWN)
        for fn, instantiate in tops
    ]
    return verify(ir.Program(tuple(builder.functions), made[0].name))


def customize(
    fn: Callable[..., Any] | str,
    *,
    instantiate: Instantiate = (),
    global_vars: Names | None = None,
) -> Schedule:
    """Make a schedule of a kernel.

    Args:
        fn: a kernel function, or the source text of one.
        instantiate: template arguments, in order (``[int8, 16]``) or by name (``{"T": 16}``).
        global_vars: names the kernel may use, for source strings.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    frame = inspect.currentframe()
    callers = caller_names(frame.f_back if frame else None)
    program = lower(fn, instantiate, {**callers, **(global_vars or {})})
    given = instantiate.values() if isinstance(instantiate, Mapping) else instantiate
    return Schedule(program, given)
