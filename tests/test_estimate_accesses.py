"""Accesses that never meet do not wait for each other; a word is read once however many want a part of it."""

from __future__ import annotations

import pytest

import flexllm_allo as allo
from flexllm_allo.estimate.result import LoopTiming, Module
from flexllm_allo.ir.types import Int, UInt, int8, int32
from flexllm_allo.kernels.attention import append_codes, scores
from flexllm_allo.kernels.linear import linear
from flexllm_allo.schedule.schedule import Schedule
from flexllm_allo.schedules import attention
from flexllm_allo.schedules import linear as schedules
from flexllm_allo.schedules.parallelism import Parallelism


def engine(lanes: int, tokens: int, macs_per_dsp: int, rows: int = 64) -> Schedule:
    sizes = {"Tx": UInt(4), "Tw": Int(4), "T": tokens, "N": 512, "K": 1024, "P": 2}
    s = allo.customize(linear, instantiate=sizes)
    s.pack(s.W, factor=64, dim=1)
    schedules.linear(s, Parallelism(weight_parallel=rows, macs_per_dsp=macs_per_dsp, lanes=lanes))
    return s


def loop(s: Schedule, name: str) -> LoopTiming:
    return next(row for stage in s.estimate("u280").stages for row in stage.loops if row.loop == name)


@pytest.mark.parametrize(("lanes", "name"), [(1, "n.outer/k"), (4, "k")])
@pytest.mark.parametrize(("tokens", "macs_per_dsp"), [(1, 2), (8, 4)])
def test_packed_products_do_not_wait_for_their_neighbours(
    lanes: int, name: str, tokens: int, macs_per_dsp: int
) -> None:
    """Even and odd rows are different elements of the sums, and lie in the same word of weights."""
    row = loop(engine(lanes, tokens, macs_per_dsp), name if tokens > 1 or lanes == 1 else "n.outer/k")
    assert (row.ii, row.reason) == (1, "as scheduled")


def test_a_sum_that_all_copies_share_still_waits() -> None:
    def kernel(A: int32[64], B: int32[8]):
        for i in range(64):
            for j in range(2):
                B[(i + j) % 8] += A[i]

    s = allo.customize(kernel)
    s.pipeline("i")
    (row,) = s.estimate("u280").stages[0].loops
    assert row.ii is not None
    assert row.ii > 1


def test_tiles_keep_few_sums_in_banks() -> None:
    """Sums in registers need a bank per row of a tile; without, they need one per row and token."""

    def design(s: Schedule) -> Module:
        return s.estimate("u280").modules[0]

    apart, tiled = (design(engine(lanes, 16, 4)) for lanes in (1, 4))
    assert 0 < tiled.lutram < apart.lutram / 2
    assert tiled.resources.bram18 == 0
    assert tiled.resources.lut < apart.resources.lut / 2


def test_layers_take_the_cycles_they_may() -> None:
    def rows(n: int, cycles: int) -> int | None:
        sizes = {"Tx": UInt(4), "Tw": Int(4), "T": 4, "N": n, "K": 64, "P": 2}
        s = allo.customize(linear, instantiate=sizes)
        schedules.linear(s, Parallelism(weight_parallel=32, cycles=cycles))
        found = loop(s, "n.outer/k")
        return n * 64 // found.trips

    assert [rows(n, 1024) for n in (64, 128, 256, 1024)] == [4, 8, 16, 32]
    assert rows(64, 0) == 32
    assert rows(96, 1024) == 6


def test_masks_and_fields_of_a_word_are_wires() -> None:
    s = allo.customize(append_codes, instantiate={"Tc": int8, "R": 32, "G": 8, "S": 64, "D": 64})
    s.pack(s.cache, factor=64, dim=2)
    attention.append(s)
    assert s.estimate("u280", head=0, pos=0, n=4).modules[0].resources.lut < 2_000


def test_a_row_that_many_queries_meet_is_read_once() -> None:
    """What one iteration in 256 reads of the cache takes little of the bandwidth."""
    sizes = dict(L=0, G=4, T=64, R=256, S=256, D=64, P=1, B=1, Tq=int8, Tc=int8, Ta=int32)
    s = allo.customize(scores, instantiate=sizes)
    s.pack(s.K, factor=64, dim=2)
    p = Parallelism(dot_parallel=64, macs_per_dsp=2)
    attention.products(s, p, once="t_s j_s", lanes={"p": 0, "d_q": 8})
    found = s.estimate("u280", pos=64, n=64, group=0)
    row = next(row for stage in found.stages for row in stage.loops if row.loop == "s/t_s/j_s")
    assert (row.trips, row.ii, row.reason) == (128 * 256, 1, "as scheduled")
    assert row.depth is not None
    assert row.cycles < row.trips + row.depth + 8
