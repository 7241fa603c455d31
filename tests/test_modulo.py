"""Modulo scheduling: checked against the optimum of an integer program."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.estimate.graph import GraphBuilder
from flexllm_allo.estimate.modulo import (
    Edge,
    Use,
    modulo_schedule,
    recurrence_interval,
    resource_interval,
)
from flexllm_allo.estimate.operators import Operators
from flexllm_allo.estimate.pipeline import _edges, _uses  # pyright: ignore[reportPrivateUsage]
from flexllm_allo.estimate.ports import storage
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import int8, int32
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.kernels import attention, norm

optimize = pytest.importorskip("scipy.optimize")
sparse = pytest.importorskip("scipy.sparse")


def feasible(uses: Sequence[Use], edges: Sequence[Edge], capacity: Mapping[str, int], interval: int) -> bool:
    """Whether any schedule of that interval exists: an operation starts in stage k and slot r."""
    count = len(uses)
    slots = count * interval
    total = slots + count  # one binary per operation and slot, one stage per operation
    rows: list[dict[int, float]] = []
    low: list[float] = []
    high: list[float] = []

    def add(row: dict[int, float], at_least: float, at_most: float) -> None:
        rows.append(row)
        low.append(at_least)
        high.append(at_most)

    for n in range(count):
        add({n * interval + r: 1 for r in range(interval)}, 1, 1)
    for e in edges:
        row: dict[int, float] = {}
        for sign, n in ((1, e.sink), (-1, e.source)):
            row[slots + n] = row.get(slots + n, 0) + sign * interval
            for r in range(interval):
                row[n * interval + r] = row.get(n * interval + r, 0) + sign * r
        add(row, e.delay - interval * e.distance, np.inf)
    for name, units in capacity.items():
        for r in range(interval):
            row = {}
            for n, use in enumerate(uses):
                for resource, taken in use:
                    if resource == name:
                        for shift in range(-(-taken // units)):
                            part = min(units, taken - shift * units)
                            at = n * interval + (r - shift) % interval
                            row[at] = row.get(at, 0) + part
            if row:
                add(row, -np.inf, units)
    matrix = sparse.lil_matrix((len(rows), total))
    for i, row in enumerate(rows):
        for j, value in row.items():
            matrix[i, j] = value
    upper = np.concatenate([np.ones(slots), np.full(count, 200.0)])
    found = optimize.milp(
        np.zeros(total),
        constraints=optimize.LinearConstraint(matrix.tocsr(), low, high),
        integrality=np.ones(total),
        bounds=optimize.Bounds(0, upper),
    )
    return found.status == 0


def check(uses: Sequence[Use], edges: Sequence[Edge], capacity: Mapping[str, int]) -> int:
    """The interval found; the schedule obeys every edge and port, and no smaller interval has one."""
    found = modulo_schedule(uses, edges, capacity)
    for e in edges:
        wait = found.starts[e.sink] - found.starts[e.source]
        assert wait >= e.delay - found.interval * e.distance
    for name, units in capacity.items():
        taken = [0] * found.interval
        for use, start in zip(uses, found.starts, strict=True):
            for resource, wanted in use:
                if resource == name:
                    for shift in range(-(-wanted // units)):
                        taken[(start + shift) % found.interval] += min(units, wanted - shift * units)
        assert max(taken) <= units
    least = max(resource_interval(uses, capacity)[0], recurrence_interval(len(uses), edges)[0])
    if found.interval > least:
        assert not feasible(uses, edges, capacity, found.interval - 1)
    return found.interval


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_reach_the_optimum(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.choice([6, 10, 16, 24])
    capacity = {"load": 2, "multiply": draw.choice([1, 2, 4]), "store": 1}
    uses = [(() if draw.random() < 0.3 else ((draw.choice(sorted(capacity)), 1),)) for _ in range(count)]
    edges = [
        Edge(draw.randrange(n), n, draw.randrange(1, 5))
        for n in range(1, count)
        for _ in range(draw.randrange(1, 3))
    ]
    for _ in range(draw.randrange(3)):
        a, b = sorted(draw.sample(range(count), 2))
        edges.append(Edge(b, a, draw.randrange(1, 4), draw.randrange(1, 3)))
    assert check(uses, edges, capacity) >= 1


def test_the_interval_of_a_cycle_is_its_delay_over_its_distance() -> None:
    ring = [Edge(0, 1, 3), Edge(1, 2, 4), Edge(2, 0, 1, distance=2)]
    assert recurrence_interval(3, ring)[0] == 4  # 8 cycles, two iterations apart
    assert [e.source for e in recurrence_interval(3, ring)[1]] in ([0, 1, 2], [1, 2, 0], [2, 0, 1])


def test_the_busiest_resource_sets_the_interval() -> None:
    uses: list[Use] = [(("ram", 3),), (("ram", 2),), (("dsp", 1),)]
    assert resource_interval(uses, {"ram": 2, "dsp": 1}) == (3, "ram")
    assert check(uses, [], {"ram": 2, "dsp": 1}) == 3


def body_of(
    kernel: object, template: dict[str, object], loop: str
) -> tuple[list[Use], list[Edge], dict[str, int]]:
    s = allo.customize(kernel, instantiate=template)  # pyright: ignore
    function = s.top_func
    table = buffers(function)
    places = {name: storage(b) for name, b in table.items()}
    found = next(n for n in walk(function.body) if isinstance(n, ir.For) and n.var == loop)
    graph = GraphBuilder(Operators("DSP48E2", 300), table, places, found).build(found.body)
    uses, capacity = _uses(graph.ops, places)
    return uses, _edges(graph), capacity


@pytest.mark.parametrize(
    ("kernel", "template", "loop", "interval"),
    [
        (norm.rms_norm, {"T": 1, "E": 64}, "e_sum", 4),
        (attention.row_sums, {"Ta": int32, "R": 4, "D": 16, "Tq": int8}, "d", 1),
    ],
)
def test_bodies_of_kernels(kernel: object, template: dict[str, object], loop: str, interval: int) -> None:
    assert check(*body_of(kernel, template, loop)) == interval
