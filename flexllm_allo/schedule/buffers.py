"""Finding buffers by name, and all the names one array goes by across calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import ScheduleError, ScheduleNameError, did_you_mean
from ..ir import nodes as ir
from ..ir.memo import remembered
from ..ir.walk import allocations, buffers, calls
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

    params = tuple(new if p.name == new.name else p for p in function.params)
    is_local = any(alloc.buffer.name == new.name for alloc in allocations(function))
    return replace(function, params=params, body=_declared(function.body, new) if is_local else function.body)


def _declared(body: tuple[ir.Stmt, ...], new: ir.Buffer) -> tuple[ir.Stmt, ...]:
    """Statements with a local of that name declared as `new`; loops without it stay the ones they are."""

    def visit(stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Alloc() if stmt.buffer.name == new.name:
                return replace(stmt, buffer=new)
            case ir.For() if any(alloc.buffer.name == new.name for alloc in allocations(stmt)):
                return replace(stmt, body=_declared(stmt.body, new))
            case ir.While():
                return replace(stmt, body=_declared(stmt.body, new))
            case ir.If():
                then, otherwise = _declared(stmt.then, new), _declared(stmt.otherwise, new)
                return replace(stmt, then=then, otherwise=otherwise)
            case _:
                return stmt

    return tuple(visit(stmt) for stmt in body)


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
    found: dict[_Key, int] = {(func, name): 0}
    work = [(func, name)]
    while work:
        here = work.pop()
        for there, moved in _links(program, *here):
            if there not in found:
                found[there] = found[here] + moved
                work.append(there)
    return [Alias(f, buffers(program.function(f))[b], shift) for (f, b), shift in found.items()]


_Key = tuple[str, str]


def _links(program: ir.Program, func: str, name: str) -> Iterator[tuple[_Key, int]]:
    """What an array of a function is called across the calls, and the dimensions its name loses there."""
    function = program.function(func)
    for callee, at, dropped in _views(function).get(name, ()):
        yield (callee, program.function(callee).params[at].name), dropped
    for caller, arg in _bound(program, function, name):
        yield (caller, arg.buffer), -len(arg.indices)


@remembered
def _views(function: ir.Function) -> dict[str, list[tuple[str, int, int]]]:
    """Where an array is passed: the function, the position there, the leading dimensions that are dropped."""
    out: dict[str, list[tuple[str, int, int]]] = {}
    for call in calls(function):
        for at, arg in enumerate(call.args):
            if isinstance(arg, ir.View):
                out.setdefault(arg.buffer, []).append((call.func, at, len(arg.indices)))
    return out


@remembered
def _called(function: ir.Function) -> dict[str, list[ir.Call]]:
    """The calls in a function, by what they call."""
    out: dict[str, list[ir.Call]] = {}
    for call in calls(function):
        out.setdefault(call.func, []).append(call)
    return out


@remembered
def _callers(program: ir.Program) -> dict[str, list[ir.Function]]:
    """The functions that call a function."""
    out: dict[str, list[ir.Function]] = {}
    for function in program.functions:
        for name in _called(function):
            out.setdefault(name, []).append(function)
    return out


def _bound(program: ir.Program, function: ir.Function, name: str) -> Iterator[tuple[str, ir.View]]:
    """The arguments that a parameter is bound to, and the functions they are in."""
    for at, param in enumerate(function.params):
        for caller in _callers(program).get(function.name, ()) if param.name == name else ():
            for call in _called(caller)[function.name]:
                if isinstance(arg := call.args[at], ir.View):
                    yield caller.name, arg


def shared_parameters(program: ir.Program, function: ir.Function) -> dict[str, str]:
    """Parameters of a function that a call may bind to one array, mapped to one name for all of them."""
    origins: dict[str, set[_Key]] = {}
    for param in function.params:
        work = [(function.name, param.name)]
        reached: set[_Key] = set()
        while work:
            func, name = work.pop()
            found = _bound(program, program.function(func), name)
            new = {(caller, view.buffer) for caller, view in found} - reached
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
