"""The simulation of FIFOs: against a clock, against the CPU, and with and without skipping."""

from __future__ import annotations

import random

import cycle_stepped
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_graphs import behaviour, graph

from flexllm_allo.backend.deadlock import deadlock
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import DeadlockError
from flexllm_allo.estimate.behaviour import UNTIMED, Behaviours
from flexllm_allo.estimate.fifos import DECLARED, UNLIMITED
from flexllm_allo.estimate.simulate import Deadlock, Simulated, simulate

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
