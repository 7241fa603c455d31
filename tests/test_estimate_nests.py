"""What the outer loops of a flattened nest carry: how many iterations later an element comes again."""

from __future__ import annotations

from typing import Any

import pytest

import flexllm_allo as allo
from flexllm_allo.analysis.recurrence import flattened
from flexllm_allo.estimate.result import LoopTiming
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.simplify import const
from flexllm_allo.ir.types import float32, int32
from flexllm_allo.ir.walk import walk


def sums_of(count: int) -> Any:
    """`count` float sums that take their terms in turn."""

    def sums(X: float32[32, 64], n: int32) -> float32[64]:
        Y: float32[64]
        acc: float32[64] = 0.0
        for k in range(n):
            for i in range(count):
                acc[i] += X[k, i]
        for o in range(64):
            Y[o] = acc[o]
        return Y

    return sums


def row(kernel: Any, name: str) -> LoopTiming:
    found = allo.customize(kernel).estimate("u280", n=32)
    return next(r for stage in found.stages for r in stage.loops if r.loop == name)


@pytest.mark.parametrize(("count", "interval"), [(2, 3), (3, 2), (5, 2), (6, 1), (16, 1)])
def test_sums_in_turn_wait_only_for_the_latency_that_others_do_not_fill(count: int, interval: int) -> None:
    """A read, an adder of four cycles, a write."""
    found = row(sums_of(count), "k/i")
    assert (found.trips, found.ii) == (32 * count, interval)
    wait = f"an iteration waits for that of {count} before: float accumulate (4 cycles)"
    assert found.reason.startswith("as scheduled" if interval == 1 else wait)


@pytest.mark.parametrize(
    ("write", "read", "expected"),
    [
        (lambda s, t, j: (t, j), lambda s, t, j: (t, j), 8),  # the same element at the next s
        (lambda s, t, j: (t,), lambda s, t, j: (t,), 1),  # at the next j
        (lambda s, t, j: (j,), lambda s, t, j: (j,), 2),  # at the next t
        (lambda s, t, j: (s, t), lambda s, t, j: (s, t - 1), 1),  # the last j of t - 1, the first of t
        (lambda s, t, j: (s, t, j), lambda s, t, j: (s, t - 2, j), 4),
        (lambda s, t, j: (s, t, j), lambda s, t, j: (s - 1, t, j), 8),
        (lambda s, t, j: (s, t, j), lambda s, t, j: (s, t, j), None),
        (lambda s, t, j: (s, t, j), lambda s, t, j: (s + 1, t, j), None),  # read before it is written
        (lambda s, t, j: (t, 0), lambda s, t, j: (t, 1), None),
        (lambda s, t, j: (t * 2 + j,), lambda s, t, j: (t * 2 + j,), 0),  # no loop alone decides
    ],
)
def test_iterations_between_a_write_and_a_read(write: Any, read: Any, expected: int | None) -> None:
    def nest(A: int32[9], n: int32) -> int32[9]:
        B: int32[9]
        for s in range(n):
            for t in range(4):
                for j in range(2):
                    B[s] = A[t] + j
        return B

    loops = tuple(n for n in walk(allo.customize(nest).program.functions[0].body) if isinstance(n, ir.For))
    at = [_Index(ir.LoopVar(loop.var)) for loop in loops]
    sides = [tuple(map(_expr, made(*at))) for made in (write, read)]
    assert flattened(*sides, loops, {}) == expected


class _Index:
    """A loop variable in plain arithmetic."""

    def __init__(self, expr: ir.Expr) -> None:
        self.expr = expr

    def _with(self, op: str, other: Any) -> _Index:
        right = other.expr if isinstance(other, _Index) else const(other)
        return _Index(ir.Binary(op, self.expr, right, self.expr.type))

    def __add__(self, other: Any) -> _Index:
        return self._with("+", other)

    def __sub__(self, other: Any) -> _Index:
        return self._with("-", other)

    def __mul__(self, other: Any) -> _Index:
        return self._with("*", other)


def _expr(value: Any) -> ir.Expr:
    return value.expr if isinstance(value, _Index) else const(value)
