"""Cycles as the schedule asks for them: every initiation interval is met, every operator takes a cycle.

Enough to compare rates of processes; what operators really take is a matter of the device.
"""

from __future__ import annotations

from functools import partial

from ...ir import nodes as ir
from .behaviour import Timing, written
from .values import Known, Unknown, evaluate


def plain_timing(program: ir.Program) -> Timing:
    """The timing of a program's loops and statements."""
    return Timing(pipeline=_pipeline, cycles=partial(_stmt, program))


def _pipeline(loop: ir.For) -> tuple[int, int]:
    return loop.attrs.pipeline or 1, 1


def _stmt(program: ir.Program, stmt: ir.Stmt, known: Known) -> int:
    match stmt:
        case ir.Store():
            return 1
        case ir.For():
            return _loop(program, stmt, known)
        case ir.If():
            return max(_body(program, b, known.copy()) for b in (stmt.then, stmt.otherwise))
        case ir.Call():
            callee = program.function(stmt.func)
            scalars: dict[str, int] = {}
            for param, arg in zip(callee.params, stmt.args, strict=True):
                if not isinstance(arg, ir.View):
                    _give(scalars, param.name, arg, known)
            return _body(program, callee.body, Known(scalars=scalars))
        case ir.While():
            raise Unknown("the condition of a while loop", stmt.condition.span)
        case _:
            return 0


def _give(scalars: dict[str, int], name: str, expr: ir.Expr, known: Known) -> None:
    try:
        scalars[name] = evaluate(expr, known)
    except Unknown:
        scalars.pop(name, None)


def _body(program: ir.Program, body: tuple[ir.Stmt, ...], known: Known) -> int:
    total = 0
    for stmt in body:
        total += _stmt(program, stmt, known)
        if isinstance(stmt, ir.Store) and not stmt.indices:
            known.store(stmt.buffer, stmt.value)
        else:
            known.forget(written((stmt,)))
    return total


def _loop(program: ir.Program, loop: ir.For, known: Known) -> int:
    """All iterations; where their number or their bodies depend on the variable, one after the other."""
    values = range(evaluate(loop.lower, known), evaluate(loop.upper, known), loop.step)
    inner = known.copy()
    inner.loops.pop(loop.var, None)
    inner.forget(written(loop.body))
    if loop.attrs.pipeline is not None:
        return len(values) * loop.attrs.pipeline
    times = 1 if loop.attrs.unroll == 0 else len(values)
    try:
        return times * _body(program, loop.body, inner)
    except Unknown:
        total = 0
        for value in values:
            inner.loops[loop.var] = value
            total += _body(program, loop.body, inner.copy())
        return total


__all__ = ["plain_timing"]
