"""``allo.primitives.unify``: two kernels of one signature in one, chosen per run by an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ScheduleError
from ..ir import nodes as ir
from ..ir.dtypes import BOOL, INDEX, Int
from ..ir.verify import verify
from ..lowering import lower_all

SELECTOR = Int(8)


def unify(func1: Callable[..., Any], func2: Callable[..., Any], loop_num: int) -> ir.Program:
    """A program that runs `loop_num` times the first or the second of two kernels.

    Its top function ``<first>_<second>_unified`` has the arguments of the kernels and ``inst:
    int8[loop_num]``: run i calls the first kernel where ``inst[i]`` is 0, the second where it is 1.

    Raises:
        ScheduleError: FX206, the kernels have different arguments or results.
    """
    program = lower_all([(func1, ()), (func2, ())])
    first = program.function(program.top)
    second = next(f for f in reversed(program.functions) if f.origin == func2.__name__)
    if _types(first) != _types(second):
        raise ScheduleError(
            "FX206",
            f"{first.name} and {second.name} cannot be unified: their arguments or results differ",
            (first.span, second.span),
            hint="give both kernels the same argument types, in the same order",
        )
    selector = ir.Buffer(_free("inst", first), SELECTOR, (loop_num,))
    run = ir.LoopVar(_free("run", first))
    body = _choice(first, second, ir.Load(selector.name, (run,), SELECTOR))
    loop = ir.For(run.name, ir.Const(0, INDEX), ir.Const(loop_num, INDEX), (body,), band="unified")
    top = ir.Function(
        f"{first.name}_{second.name}_unified",
        (*first.inputs, selector, *first.outputs),
        (loop,),
        first.results,
        span=first.span,
    )
    return verify(ir.Program((*program.functions, top), top.name))


def _choice(first: ir.Function, second: ir.Function, chosen: ir.Load) -> ir.If:
    """Both calls take the arguments of the unified function, which are named as the first kernel's."""

    def is_(value: int) -> ir.Binary:
        return ir.Binary("==", chosen, ir.Const(value, SELECTOR), BOOL)

    args = tuple(
        ir.View(p.name) if p.shape or p in first.outputs else ir.Load(p.name, (), p.dtype)
        for p in first.params
    )
    calls = [ir.Call(f.name, args, f.span) for f in (first, second)]
    return ir.If(is_(0), (calls[0],), (ir.If(is_(1), (calls[1],)),))


def _types(function: ir.Function) -> tuple[object, ...]:
    return function.results, tuple((p.dtype, p.shape, p.depth) for p in function.params)


def _free(name: str, function: ir.Function) -> str:
    taken = {p.name for p in function.params}
    while name in taken:
        name += "_"
    return name
