"""Random schedules keep every bit and replay; the examples of the docstrings run."""

from __future__ import annotations

import doctest
from math import prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schedule_kernels import (
    blur,
    conv2d,
    convolution,
    dots,
    double,
    fork,
    gemm,
    gemm_f,
    producer_consumer,
    rows,
    same_result,
    shift,
    stencil,
    strided,
    total,
    triangle,
    two_stages,
    vadd,
)

import flexllm_allo as allo
from flexllm_allo.errors import ScheduleError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule import (
    computing,
    copies,
    dataflow,
    flatten,
    lanes,
    loops,
    memory,
    multipliers,
    packing,
    reshaping,
    reuse,
    spatial,
)
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.schedule import Schedule

# ---------------------------------------------------------------------------------- random schedules


_PRIMITIVES = [
    "split",
    "vectorize",
    "reorder",
    "fuse",
    "buffer_at",
    "pipeline",
    "reuse_at",
    "compute_at",
    "flatten",
    "reshape",
    "unfold",
]


@st.composite
def random_schedules(draw):
    """A kernel and a list of primitives by position; those refused are skipped when applied."""
    kernels = [gemm, gemm_f, stencil, triangle, convolution, shift, strided, blur, conv2d, two_stages, dots]
    kernel = draw(st.sampled_from(kernels))
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(_PRIMITIVES),
                st.integers(0, 5), st.integers(0, 5), st.integers(1, 4),
            ),
            min_size=1, max_size=5,
        )
    )  # fmt: skip
    return kernel, steps


def apply_steps(s: Schedule, steps) -> None:
    for name, x, y, factor in steps:
        names = [f"{band}.{loop}" for band, entry in s.get_loops() for loop in entry.loops]
        if not names:
            return
        a, b = names[x % len(names)], names[y % len(names)]
        buffer = next(iter(s.top_func.outputs or s.top_func.params)).name
        arrays = [b for b in buffers(s.top_func).values() if b.shape]
        array = arrays[y % len(arrays)]
        inside = next((b for b in arrays if b not in s.top_func.params), array)
        args = {
            "split": (a, factor), "vectorize": (a, factor), "reorder": (a, b), "fuse": (a, b),
            "pipeline": (a, factor), "flatten": (a,),
            "buffer_at": (buffer, a), "reuse_at": (array.name, a), "compute_at": (a, b),
            "reshape": (inside.name, (prod(inside.shape),)), "unfold": (a.rpartition(".")[0], [factor - 1]),
        }[name]  # fmt: skip
        before = s.program
        try:
            getattr(s, name)(*args)
        except ScheduleError as error:
            assert s.program is before
            shown = str(error)
            assert "primitive" in shown


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_schedules())
def test_random_schedules_keep_every_bit(case):
    kernel, steps = case
    s = same_result(kernel, lambda s: apply_steps(s, steps))
    again = allo.customize(kernel)
    again.replay(s.trace)
    assert again.program == s.program


# -------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize(
    "module",
    [
        loops,
        lanes,
        memory,
        multipliers,
        packing,
        dataflow,
        computing,
        reshaping,
        reuse,
        spatial,
        copies,
        flatten,
    ],
)  # fmt: skip
def test_docstring_examples(module):
    names = {
        "allo": allo, "gemm": gemm, "vadd": vadd, "double": double,
        "producer_consumer": producer_consumer, "Partition": Partition, "total": total, "blur": blur,
        "fork": fork, "rows": rows,
    }  # fmt: skip
    found = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 2
    assert found.failed == 0
