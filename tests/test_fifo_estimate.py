"""Estimates of regions of a Llama against the simulation of their FIFOs, cycle by cycle."""

from __future__ import annotations

import pytest

from flexllm_allo.estimate.estimator import estimate
from flexllm_allo.estimate.fifo.behaviour import Behaviours
from flexllm_allo.estimate.fifo.fifos import UNLIMITED
from flexllm_allo.estimate.fifo.simulate import simulate
from flexllm_allo.estimate.figures import fifo_timing
from flexllm_allo.hybrid import HybridTop, reachable
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import hardware_top


@pytest.fixture(scope="module")
def top() -> HybridTop:
    return hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 128))


def instances(top: HybridTop, kernel: str) -> list[str]:
    return [f.name for f in top.top.functions if f.origin == kernel]


@pytest.mark.parametrize("kernel", ["norm_quantize", "linear_add"])
def test_a_region_takes_what_its_simulation_takes(top: HybridTop, kernel: str) -> None:
    """Within 2 %, in prefill and in decode, also where a process gives in bursts.

    That is the norm of a block, which sums four tokens at a time and sends nothing meanwhile.
    """
    names = instances(top, kernel)
    assert len(names) >= 2
    for name in names:
        program = reachable(top.top, name)
        made = Behaviours(program, fifo_timing(program, "u280")).of(name)
        estimated = estimate(program, "u280", on_chip=True).cycles
        assert estimated == pytest.approx(simulate(made, UNLIMITED).cycles, rel=0.02), name
