"""Regions of a few processes, each with its own way of using FIFOs, against the simulation of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import flexllm_allo as allo
from flexllm_allo.estimate.fifo.behaviour import Behaviours
from flexllm_allo.estimate.fifo.fifos import UNLIMITED
from flexllm_allo.estimate.fifo.simulate import simulate
from flexllm_allo.estimate.figures import fifo_timing
from flexllm_allo.ir.types import Stream, int32

N = 1024


def feed(A: int32[N], o: Stream[int32, 4]) -> None:
    for i in range(N):
        o.put(A[i])


def turn(x: Stream[int32, 4], o: Stream[int32, 4]) -> None:
    row: int32[N]
    for i in range(N):
        row[i] = x.get()
    for j in range(N):
        o.put(row[N - 1 - j])


def one_then_other(x: Stream[int32, 4], y: Stream[int32, 4], o: Stream[int32, 4]) -> None:
    for i in range(N):
        o.put(x.get())
    for j in range(N):
        o.put(y.get())


def twice(x: Stream[int32, 4], B: int32[4 * N]) -> None:
    v: int32 = 0
    for i in range(4 * N):
        if i % 2 == 0:
            v = x.get()
        B[i] = v


def read_one_after_the_other(A: int32[N], C: int32[N], B: int32[4 * N]) -> None:
    """Tokens that are there at once are taken while those of the second FIFO are still on their way."""
    now: Stream[int32, 4]
    raw: Stream[int32, 4]
    turned: Stream[int32, 4]
    late: Stream[int32, 4]
    out: Stream[int32, 4]
    feed(A, now)
    feed(C, raw)
    turn(raw, turned)
    turn(turned, late)
    one_then_other(now, late, out)
    twice(out, B)


def last_of_all(x: Stream[int32, 4], o: Stream[int32, 4]) -> None:
    total: int32 = 0
    for i in range(N):
        total += x.get()
        if i == N - 1:
            o.put(total)


def spread(x: Stream[int32, 4], B: int32[4 * N]) -> None:
    v: int32 = 0
    for i in range(N):
        if i == 0:
            v = x.get()
        B[i] = v


def one_token_at_the_end(A: int32[N], B: int32[4 * N]) -> None:
    """A put under a condition that holds in the last iteration, and a get that happens once."""
    way: Stream[int32, 4]
    once: Stream[int32, 4]
    feed(A, way)
    last_of_all(way, once)
    spread(once, B)


def pass_some(x: Stream[int32, 4], o: Stream[int32, 4], p: Stream[int32, 4], rows: int32) -> None:
    for i in range(N):
        o.put(x.get())
    for r in range(rows):
        for j in range(N):
            p.put(j)


def take_some(p: Stream[int32, 4], o: Stream[int32, 4], rows: int32) -> None:
    row: int32[N]
    for r in range(rows):
        for i in range(N):
            row[i] = p.get()
        for j in range(N):
            o.put(row[j])
    for k in range(N):
        o.put(k)


def no_token_at_all(A: int32[N], B: int32[N], C: int32[N]) -> None:
    """Nobody waits for a process that gives nothing to it."""
    raw: Stream[int32, 4]
    turned: Stream[int32, 4]
    way: Stream[int32, 4]
    nothing: Stream[int32, 4]
    own: Stream[int32, 4]
    feed(A, raw)
    turn(raw, turned)
    pass_some(turned, way, nothing, 0)
    take_some(nothing, own, 0)
    turn_back(own, B)
    turn_back(way, C)


def turn_back(x: Stream[int32, 4], B: int32[N]) -> None:
    for i in range(N):
        B[N - 1 - i] = x.get()


LOOPS = {
    feed: "i",
    turn: "ij",
    one_then_other: "ij",
    twice: "i",
    last_of_all: "i",
    spread: "i",
    turn_back: "i",
    pass_some: "ij",
    take_some: "ijk",
}


@pytest.mark.parametrize("region", [read_one_after_the_other, one_token_at_the_end, no_token_at_all])
def test_as_its_simulation(region: Callable[..., None]) -> None:
    s = allo.customize(region)
    used = {f.name for f in s.program.functions}
    for process, loops in LOOPS.items():
        for loop in loops if process.__name__ in used else ():
            s.pipeline(f"{process.__name__}:{loop}")
    s.dataflow()
    made = Behaviours(s.program, fifo_timing(s.program, "u280")).of(region.__name__)
    expected = simulate(made, UNLIMITED).cycles
    assert s.estimate("u280", on_chip=True).cycles == pytest.approx(expected, rel=0.02)
