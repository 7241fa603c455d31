"""Random schedules keep every bit and replay; the examples of the docstrings run."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schedule_kernels import (
    convolution,
    double,
    gemm,
    gemm_f,
    producer_consumer,
    same_result,
    shift,
    stencil,
    strided,
    total,
    triangle,
    vadd,
)

import flexllm_allo as allo
from flexllm_allo.errors import ScheduleError
from flexllm_allo.schedule import dataflow, loops, memory, packing
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.schedule import Schedule

# ---------------------------------------------------------------------------------- random schedules


@st.composite
def random_schedules(draw):
    """A kernel and a list of primitives by position; those refused are skipped when applied."""
    kernel = draw(st.sampled_from([gemm, gemm_f, stencil, triangle, convolution, shift, strided]))
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["split", "reorder", "fuse", "buffer_at", "pipeline"]),
                st.integers(0, 5), st.integers(0, 5), st.integers(1, 4),
            ),
            min_size=1, max_size=5,
        )
    )  # fmt: skip
    return kernel, steps


def apply_steps(s: Schedule, steps) -> None:
    for name, x, y, factor in steps:
        names = [f"{band}.{loop}" for band, entry in s.get_loops() for loop in entry.loops]
        a, b = names[x % len(names)], names[y % len(names)]
        buffer = next(iter(s.top_func.outputs or s.top_func.params)).name
        args = {
            "split": (a, factor), "reorder": (a, b), "fuse": (a, b), "pipeline": (a, factor),
            "buffer_at": (buffer, a),
        }[name]  # fmt: skip
        before = s.program
        try:
            getattr(s, name)(*args)
        except ScheduleError as error:
            assert s.program is before
            shown = str(error)
            assert "primitive" in shown


@settings(max_examples=70, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_schedules())
def test_random_schedules_keep_every_bit(case):
    kernel, steps = case
    s = same_result(kernel, lambda s: apply_steps(s, steps))
    again = allo.customize(kernel)
    again.replay(s.trace)
    assert again.program == s.program


# -------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize("module", [loops, memory, packing, dataflow])
def test_docstring_examples(module):
    names = {
        "allo": allo, "gemm": gemm, "vadd": vadd, "double": double,
        "producer_consumer": producer_consumer, "Partition": Partition, "total": total,
    }  # fmt: skip
    found = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 3
    assert found.failed == 0
