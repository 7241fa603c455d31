"""Regions against a simulation that steps from token to token, with FIFOs without limit."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from flexllm_allo.estimate.cost import Cost
from flexllm_allo.estimate.dataflow import FIFO_LATENCY, Process, region
from flexllm_allo.estimate.pace import Pace, Stretch, together


@dataclass(frozen=True)
class Rows:
    """A process that works row by row: reads a row, thinks, writes a row."""

    rows: int
    tokens: int
    read_interval: int
    think: int
    write_interval: int

    def run(self, arrivals: list[float] | None) -> tuple[float, list[float], list[float]]:
        """When it ends, when its tokens leave, and when it took them."""
        now, left, taken = 0.0, list[float](), list[float]()
        for row in range(self.rows):
            for token in range(self.tokens):
                if arrivals is not None:
                    now = max(now, arrivals[row * self.tokens + token] + FIFO_LATENCY)
                taken.append(now)
                now += self.read_interval
            now += self.think
            for _ in range(self.tokens):
                left.append(now)
                now += self.write_interval
        return now, left, taken

    def pace(self, times: list[float]) -> Pace:
        """What an estimate knows of the tokens: first and last of every row."""
        each = self.tokens
        return together(
            *((Stretch(times[n], times[n + each - 1], each),) for n in range(0, len(times), each))
        )


def drawn(draw: random.Random, rows: int, tokens: int) -> Rows:
    return Rows(rows, tokens, draw.choice([1, 1, 2, 4]), draw.randrange(40), draw.choice([1, 1, 2]))


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_chains_end_when_a_simulation_does(seed: int, many: bool) -> None:
    """Also of a few rows, each a burst that the next process waits for."""
    draw = random.Random(seed)
    rows = draw.choice([64, 100]) if many else draw.randrange(1, 9)
    tokens = draw.choice([8, 32, 64]) * (1 if many else 10)
    compare([drawn(draw, rows, tokens) for _ in range(draw.randrange(2, 7))])


def test_a_row_that_takes_much_longer_than_its_tokens() -> None:
    """Sixteen rows of a matrix times a vector: in each most of the time nothing passes."""
    compare([Rows(16, 32, 1, 1000, 1), Rows(16, 32, 1, 0, 1), Rows(16, 32, 2, 1100, 1)])


def compare(chain: list[Rows]) -> None:
    """The estimate of a chain with its simulation."""
    arrivals: list[float] | None = None
    end = 0.0
    processes: list[Process] = []
    for number, rows_of in enumerate(chain):
        end, arrivals = rows_of.run(arrivals)[:2]  # by what came before
        alone, left, taken = rows_of.run(None)
        paces = {f"s{number}": rows_of.pace(taken), f"s{number + 1}": rows_of.pace(left)}
        cost = Cost(alone, tokens=paces)
        reads, writes = frozenset({f"s{number}"}), frozenset({f"s{number + 1}"})
        processes.append(Process(cost, reads, writes))
    assert region(processes).cycles == pytest.approx(end, rel=0.02)


def test_two_readers_of_one_writer() -> None:
    """A fork: both get their copies, and the region ends with the slower one."""
    writer = Rows(64, 16, 1, 5, 1)
    fast, slow = Rows(64, 16, 1, 0, 1), Rows(64, 16, 2, 9, 1)
    end, left, _ = writer.run(None)
    ends = [side.run(left)[0] for side in (fast, slow)]
    processes = [
        Process(
            Cost(end, tokens={"a": writer.pace(left), "b": writer.pace(left)}),
            frozenset(),
            frozenset({"a", "b"}),
        )
    ]
    for name, side in (("a", fast), ("b", slow)):
        alone, _, taken = side.run(None)
        processes.append(
            Process(Cost(alone, tokens={name: side.pace(taken)}), frozenset({name}), frozenset())
        )
    assert region(processes).cycles == pytest.approx(max(ends), rel=0.02)
