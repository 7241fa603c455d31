"""Finding buffers by name, and all the names one array goes by across calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import ScheduleError, ScheduleNameError, did_you_mean
from ..ir import nodes as ir
from ..ir.memo import remembered
from ..ir.walk import Node, buffers, calls, rewrite
from .names import find_function
from .trace import BufferName, MockBuffer

Target = str | MockBuffer | BufferName


def find_buffer(program: ir.Program, func: str, target: Target) -> tuple[ir.Function, ir.Buffer]:
    """Resolve ``"C"``, ``"func:C"``, ``s.C`` to the function and its buffer.

    Raises:
        ScheduleNameError: FX201.
    """
    match target:
        case MockBuffer():
            owner, name = target.func, target.name
        case BufferName():
            owner, name = target.func or func, target.name
        case str():
            prefix, _, name = target.rpartition(":")
            owner = prefix or func
        case _:
            raise ScheduleError(
                "FX204", f"a buffer is given as s.C or by its name, not {target!r}", hint='s.C or "func:C"'
            )
    function = find_function(program, owner)
    table = buffers(function)
    if name not in table:
        raise ScheduleNameError(
            "FX201", f'Target {name} not found in function "{owner}"', at=function.span,
            hint=did_you_mean(name, table),
        )  # fmt: skip
    return function, table[name]


def change_buffer(function: ir.Function, new: ir.Buffer) -> ir.Function:
    """The function with its buffer of that name declared as `new`.

    Raises:
        ScheduleError: FX205, the function is written in C++, so its parameters are what they are.
    """
    if function.extern is not None:
        old = next(p for p in function.params if p.name == new.name)
        if (old.dtype, old.shape, old.depth) != (new.dtype, new.shape, new.depth):
            raise ScheduleError(
                "FX205",
                f'"{new.name}" is passed to {function.name}, which is written in C++ for {old.dtype!r}',
                at=function.span,
                hint="copy it into another array before the call",
            )

    def visit(node: Node) -> Node | None:
        if isinstance(node, ir.Alloc) and node.buffer.name == new.name:
            return replace(node, buffer=new)
        return None

    params = tuple(new if p.name == new.name else p for p in function.params)
    return replace(function, params=params, body=rewrite(function.body, visit))


@dataclass(frozen=True)
class Alias:
    """A name of an array. Its dimension d is dimension ``d + shift`` of the array asked about."""

    func: str
    buffer: ir.Buffer
    shift: int


def aliases(program: ir.Program, func: str, name: str) -> list[Alias]:
    """All names of an array, itself first: parameters it is passed to, arguments it comes from.

    A view ``A[i]`` drops leading dimensions, so dimensions shift on the way.
    """
    links = _links(program)
    found: dict[_Key, int] = {(func, name): 0}
    work = [(func, name)]
    while work:
        here = work.pop()
        for there, moved in links.get(here, ()):
            if there not in found:
                found[there] = found[here] + moved
                work.append(there)
    return [Alias(f, buffers(program.function(f))[b], shift) for (f, b), shift in found.items()]


_Key = tuple[str, str]


@remembered
def _links(program: ir.Program) -> dict[_Key, list[tuple[_Key, int]]]:
    """What each array is called across the calls, and the dimensions its name loses (< 0: wins) there."""
    out: dict[_Key, list[tuple[_Key, int]]] = {}
    for caller, callee, dropped in _passed(program):
        out.setdefault(caller, []).append((callee, dropped))
        out.setdefault(callee, []).append((caller, -dropped))
    return out


def _passed(program: ir.Program) -> Iterator[tuple[_Key, _Key, int]]:
    """(caller, buffer), (callee, parameter), number of leading dimensions the view drops."""
    for function in program.functions:
        for call in calls(function):
            callee = program.function(call.func)
            for param, arg in zip(callee.params, call.args, strict=True):
                if isinstance(arg, ir.View):
                    yield (function.name, arg.buffer), (callee.name, param.name), len(arg.indices)


@remembered
def _arguments(program: ir.Program) -> dict[_Key, set[_Key]]:
    """For each parameter the arguments it is bound to."""
    out: dict[_Key, set[_Key]] = {}
    for caller, callee, _ in _passed(program):
        out.setdefault(callee, set()).add(caller)
    return out


def shared_parameters(program: ir.Program, function: ir.Function) -> dict[str, str]:
    """Parameters of a function that a call may bind to one array, mapped to one name for all of them."""
    origins: dict[str, set[_Key]] = {}
    arguments = _arguments(program)
    for param in function.params:
        work = [(function.name, param.name)]
        reached: set[_Key] = set()
        while work:
            new = arguments.get(work.pop(), set()) - reached
            reached |= new
            work += new
        origins[param.name] = reached
    out: dict[str, str] = {}
    names = list(origins)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if origins[a] & origins[b]:
                out[b] = out.setdefault(a, a)
    return out
