"""Binding the schedule of a kernel to its instances inside another program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..errors import ScheduleError, did_you_mean
from ..ir import nodes as ir
from ..ir.walk import walk
from .trace import BufferName, Primitive


def instances(program: ir.Program, kernel: ir.Function, id: str | None) -> list[str]:
    """Names of the instances of a kernel in a program, or of the one made with `id`.

    Raises:
        ScheduleError: FX206, there is none.
    """
    origin = kernel.origin or kernel.name
    found = [f for f in program.functions if (f.origin or f.name) == origin]
    if not found:
        raise ScheduleError(
            "FX206", f'no instance of kernel "{origin}" in the program of "{program.top}"',
            hint=did_you_mean(origin, {f.origin or f.name for f in program.functions}),
        )  # fmt: skip
    if id is None:
        return [f.name for f in found]
    chosen = [f for f in found if f.name == f"{origin}_{id}" or id in _ids(f)]
    if not chosen:
        raise ScheduleError(
            "FX206", f'kernel "{origin}" has no instance with id "{id}"',
            hint="instances: " + ", ".join(f.name for f in found),
        )  # fmt: skip
    return [f.name for f in chosen]


def _ids(function: ir.Function) -> set[object]:
    return {value for _, value in function.bindings if isinstance(value, str)}


def matching(pattern: ir.Program, root: str, program: ir.Program, instance: str) -> dict[str, str]:
    """Which function of `program` plays the part of each function of `pattern`.

    `instance` plays `root`; below, calls are matched in program order.
    """
    names = {root: instance}
    work = [(root, instance)]
    while work:
        a, b = work.pop()
        for mine, theirs in zip(_calls(pattern, a), _calls(program, b), strict=False):
            if mine not in names:
                names[mine] = theirs
                work.append((mine, theirs))
    return names


def _calls(program: ir.Program, name: str) -> Iterator[str]:
    for node in walk(program.function(name).body):
        if isinstance(node, ir.Call):
            yield node.func


def renamed(step: Primitive, names: dict[str, str], instance: str) -> Primitive:
    """The step with function names translated, bound to the instance."""

    def translate(value: object, whole: bool) -> object:
        match value:
            case BufferName(name, str() as func):
                return BufferName(name, names.get(func, func))
            case str() if ":" in value:
                func, _, rest = value.partition(":")
                return f"{names.get(func, func)}:{rest}"
            case str() if whole:
                return names.get(value, value)
            case tuple():
                return tuple(translate(v, whole) for v in value)  # pyright: ignore
            case _:
                return value

    # These take names of functions as such; elsewhere a plain name is a loop or a buffer.
    functions = step.name in ("dataflow", "inline")
    args = tuple(translate(a, functions or (step.name == "to" and i == 1)) for i, a in enumerate(step.args))
    kwargs = tuple((k, translate(v, functions or k == "dst")) for k, v in step.kwargs)
    func = instance if step.func is None else names.get(step.func, step.func)
    return replace(step, args=args, kwargs=kwargs, func=func)
