"""The simulation of FIFOs: against a clock, against the CPU, and with and without skipping."""

from __future__ import annotations

import random
from dataclasses import replace

import cycle_stepped
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_build import const, fifo, function, get, load, local, loop, program, put
from stream_graphs import behaviour, graph, timing

from flexllm_allo.backend.deadlock import deadlock
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import DeadlockError
from flexllm_allo.estimate.fifo.behaviour import UNTIMED, Behaviours
from flexllm_allo.estimate.fifo.compiled import table
from flexllm_allo.estimate.fifo.depths import fast_depths
from flexllm_allo.estimate.fifo.fifos import DECLARED, UNLIMITED
from flexllm_allo.estimate.fifo.simulate import Deadlock, Simulated, Simulator, simulate
from flexllm_allo.ir import nodes as ir

SEEDS = st.integers(0, 1 << 40)


def outcome(made, depths=DECLARED, *, skip=True) -> Simulated | str:
    try:
        return simulate(made, depths, skip=skip)
    except Deadlock as stuck:
        return "; ".join(b.text for b in stuck.blocked)


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.integers(1, 7))
def test_as_a_clock_counts(seed: int, depth: int) -> None:
    made = behaviour(graph(random.Random(seed)), depth)
    found = outcome(made)
    if isinstance(found, Simulated):
        assert cycle_stepped.run(made) == (found.cycles, found.peaks)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_a_deadlock_of_sequential_code_is_one_by_the_clock(seed: int) -> None:
    made = behaviour(graph(random.Random(seed), pipelined=False))
    if isinstance(outcome(made), str):
        with pytest.raises(cycle_stepped.Stuck):
            cycle_stepped.run(made)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_skipping_changes_nothing(seed: int) -> None:
    made = behaviour(graph(random.Random(seed), tokens=300))
    for depths in (DECLARED, UNLIMITED):
        assert outcome(made, depths, skip=True) == outcome(made, depths, skip=False)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 7))
def test_compiled_code_gives_the_same_cycles(seed: int, depth: int) -> None:
    made = behaviour(graph(random.Random(seed), tokens=30), depth)
    instructions = table(made)
    if instructions is None:
        return
    for depths in (DECLARED, UNLIMITED):
        found = outcome(made, depths)
        assert instructions.cycles(depths) == (found.cycles if isinstance(found, Simulated) else None)


def test_what_compiled_code_takes() -> None:
    """Nested regions and calls are in the table, sequences of regions are not."""
    taken = [table(behaviour(graph(random.Random(seed)))) is not None for seed in range(100)]
    assert 60 < sum(taken) < 100


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_it_deadlocks_where_the_cpu_does_and_says_the_same(seed: int) -> None:
    p = graph(random.Random(seed))
    expected = _message(lambda: Interpreter(p)(*[np.zeros(1, np.int32) for _ in p.function("top").params]))
    for made in (behaviour(p), Behaviours(p, UNTIMED).of("top")):
        assert _message(lambda made=made: _refused(p, made)) == expected


def _refused(p, made) -> None:
    try:
        simulate(made)
    except Deadlock as stuck:
        raise deadlock(p, stuck.function, stuck.blocked) from None


def _message(action) -> str:
    try:
        action()
    except DeadlockError as error:
        return str(error)
    return ""


# ----------------------------------------------------------------------- numbers worked out by hand


def pipelined(n: int, depth: int):
    """Two pipelined loops of `n` iterations, and a FIFO between them."""
    p = graph_of(loop("i", n, put("s", const(1))), loop("i", n, *get("v", "s")[1:]), depth)
    return Behaviours(p, timing(1)).of("top")


def graph_of(first: ir.For, second: ir.For, depth: int) -> ir.Program:
    parts = [replace(part, attrs=ir.LoopAttrs(pipeline=1)) for part in (first, second)]
    setup = (ir.Alloc(fifo("s", depth)), local("v"))
    return program(function("top", [], *setup, replace(parts[0], band="first"), parts[1], dataflow=True))


def test_a_token_per_cycle_needs_depth_two() -> None:
    """Put k in cycle k, got in cycle k + 1; with one place, the next put waits for the get."""
    assert simulate(pipelined(100, 2)).cycles == 101
    alone = simulate(pipelined(100, 1))
    assert alone.cycles == 200
    assert alone.stalls == {("first", "s", "full"): 99, ("over_i", "s", "empty"): 100}
    assert alone.peaks == {("top", "s"): 1}
    assert fast_depths(pipelined(100, 1)) == {("top", "s"): 2}


def test_a_long_run_is_looked_at_in_part_only() -> None:
    simulator = Simulator(DECLARED, skip=True)
    assert simulator.run(pipelined(10**9, 1)).cycles == 2 * 10**9
    assert simulator.moved < 100


def test_a_faster_writer_drifts_ahead() -> None:
    slow = loop("i", 10**6, *get("v", "s")[1:], *(put("t", load("v")), get("v", "t")[1]))
    setup = (ir.Alloc(fifo("s", 4)), ir.Alloc(fifo("t", 4)), local("v"))
    fast = replace(loop("i", 10**6, put("s", const(1))), band="first")
    p = program(function("top", [], *setup, fast, slow, dataflow=True))
    simulator = Simulator(UNLIMITED, skip=True)
    # The slow loop takes three cycles per token: the first comes a cycle late.
    assert simulator.run(Behaviours(p, timing()).of("top")).cycles == 3 * 10**6 + 1
    assert simulator.moved < 5000
