"""``customize``: a kernel becomes a `Schedule`, the object that primitives and builds act on."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import UNKNOWN
from .frontend.names import Names, caller_names
from .frontend.options import DEFAULT, Options
from .frontend.program import ProgramBuilder
from .ir import nodes as ir
from .ir.verify import verify
from .schedule.memory import Partition
from .schedule.schedule import Schedule, primitive

Instantiate = Sequence[Any] | Mapping[str, Any]


def lower(
    fn: Callable[..., Any] | str,
    instantiate: Instantiate = (),
    names: Names | None = None,
    options: Options = DEFAULT,
) -> ir.Program:
    """The program of a kernel and everything it calls.

    Args:
        fn: a kernel function, or the source text of one (the first function in it).
        instantiate: template arguments, in order or by name; a string in a list is an instance id.
        names: what the kernel may use by name beyond its own globals and closure.
        options: rules of the whole program.

    Raises:
        FrontendError: the kernel breaks a rule of the language; the error shows the line.
    """
    return lower_all([(fn, instantiate)], names, options)


def lower_all(
    tops: Sequence[tuple[Callable[..., Any] | str, Instantiate]],
    names: Names | None = None,
    options: Options = DEFAULT,
) -> ir.Program:
    """One program for several kernels that share the instances they call; the first is the top."""
    builder = ProgramBuilder(names or {}, options)
    made = [
        builder.from_string(fn, names or {}, instantiate)
        if isinstance(fn, str)
        else builder.instantiate(fn, instantiate, [], UNKNOWN)
        for fn, instantiate in tops
    ]
    return verify(ir.Program(tuple(builder.functions), made[0].name))


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
    del context
    given: Instantiate = () if instantiate is None else instantiate
    options = Options(typing_rule_set, lower_linalg, enable_tensor, unroll)
    frame = inspect.currentframe()
    callers = caller_names(frame.f_back if frame else None, getattr(fn, "__globals__", None))
    program = lower(fn, given, {**callers, **(global_vars or {})}, options)
    if verbose:
        sys.stdout.write(str(program))
    return Schedule(program, given.values() if isinstance(given, Mapping) else given)


getsourcefile = inspect.getsourcefile


def wrapped_apply(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of a schedule a primitive: recorded in the trace, and undone when it is refused."""
    return primitive(method)(method)


__all__ = ["Partition", "Schedule", "customize", "lower", "lower_all"]
