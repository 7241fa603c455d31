"""Depths of FIFOs: the least that do not deadlock, by trying all of them; the least that do not slow."""

from __future__ import annotations

import random
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_graphs import behaviour, graph

from flexllm_allo.estimate.fifo.behaviour import UNTIMED, Behaviours
from flexllm_allo.estimate.fifo.depths import blocked_at, fast_depths, freeing_depths, safe_depths
from flexllm_allo.estimate.fifo.fifos import UNLIMITED, Depths
from flexllm_allo.estimate.fifo.network import network
from flexllm_allo.estimate.fifo.simulate import Deadlock, simulate

SEEDS = st.integers(0, 1 << 40)


def ends(made, depths: dict) -> bool:
    return blocked_at(made, Depths(depths)) is None


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_the_least_sum_of_depths_that_ends(seed: int) -> None:
    p = graph(random.Random(seed), tokens=3)
    made = Behaviours(p, UNTIMED).of("top")
    try:
        found = safe_depths(made)
    except Deadlock:
        assert not ends(made, dict.fromkeys(network(made).declared, 99))
        return
    assert ends(made, found)
    total = sum(found.values())
    for depths in product(range(1, total - len(found) + 2), repeat=len(found)):
        if sum(depths) < total:
            assert not ends(made, dict(zip(found, depths, strict=True)))


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_what_the_network_says_is_safe_has_depth_one(seed: int) -> None:
    """Where no cycle of waiting is possible nothing deadlocks; other streams do not change with them."""
    made = Behaviours(graph(random.Random(seed), tokens=4), UNTIMED).of("top")
    net = network(made)
    deep = {key: 99 if key in net.cyclic() else 1 for key in net.declared}
    assert ends(made, deep) == ends(made, dict.fromkeys(net.declared, 99))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_depths_that_do_not_slow_and_none_less_does_as_well(seed: int) -> None:
    made = behaviour(graph(random.Random(seed), tokens=4))
    try:
        goal = simulate(made, UNLIMITED).cycles
    except Deadlock:
        return
    found = fast_depths(made)
    assert simulate(made, Depths(found)).cycles == goal
    for key, depth in found.items():
        if depth > 1:
            less = Depths({**found, key: depth - 1})
            assert blocked_at(made, less) is not None or simulate(made, less).cycles > goal


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_what_frees_a_deadlock_is_the_least(seed: int) -> None:
    made = Behaviours(graph(random.Random(seed), tokens=3), UNTIMED).of("top")
    declared = dict.fromkeys(network(made).declared, 1)
    if ends(made, declared) or not ends(made, dict.fromkeys(declared, 99)):
        return
    freed = freeing_depths(made, declared)
    assert ends(made, {**declared, **freed})
    for key, depth in freed.items():
        assert not ends(made, {**declared, **freed, key: depth - 1})
