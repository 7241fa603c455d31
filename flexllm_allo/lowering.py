"""From kernels to a program: the frontend as `customize` and its kin call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import UNKNOWN
from .frontend.names import Names
from .frontend.options import DEFAULT, Options
from .frontend.program import ProgramBuilder
from .ir import nodes as ir
from .ir.verify import verify

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
