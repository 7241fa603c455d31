"""Every family under every set of schedules: against transformers, the reference, and as compiled C++."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from family_models import CONTEXT, FAMILIES, WINDOW, hf_logits, hf_model, model_of, random_tokens

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.runtime.session import Session

SCHEDULES = ("cpu", "hardware")
LENGTHS = (1, 3, WINDOW, WINDOW + 1, 17, CONTEXT - 1)
"""Below, at and beyond the sliding window; no multiples of a block of 4 or 16 tokens."""


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@cache
def torch_model(name: str) -> Any:
    return hf_model(name)


@cache
def session(name: str, recipe: str, schedules: str) -> Session:
    model = model_of(torch_model(name), recipe)
    if schedules == "cpu":
        return Session(model)
    return Session(model, hardware_top(model, token_parallel=4, weight_parallel=4))


@pytest.mark.parametrize("schedules", SCHEDULES)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name: str, schedules: str) -> None:
    made = session(name, "none", schedules)
    for length in LENGTHS:
        tokens = random_tokens(length)
        expected = hf_logits(torch_model(name), tokens)
        assert np.ptp(expected) > 1
        for stage in ("prefill", "decode"):
            assert relative(made.logits(tokens, stage), expected) < 1e-3, (length, stage)


@pytest.mark.parametrize("schedules", SCHEDULES)
@pytest.mark.parametrize("name", FAMILIES)
def test_integers_are_those_of_the_reference(name: str, schedules: str) -> None:
    made = session(name, "w8a8kv8", schedules)
    reference = ReferenceLlama(made.model.weights)
    for length in LENGTHS:
        tokens = random_tokens(length)
        expected = reference.prefill(tokens)
        for stage in ("prefill", "decode"):
            np.testing.assert_array_equal(made.logits(tokens, stage), expected, err_msg=f"{length}, {stage}")
        assert relative(expected, hf_logits(torch_model(name), tokens)) < 0.2


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_cpp_generates_the_same_tokens(name: str) -> None:
    """The hybrid top, a prompt beyond the window that is no multiple of a block."""
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    model = session(name, "w8a8kv8", "hardware").model
    top = hardware_top(model, token_parallel=4, weight_parallel=4).top
    arguments = golden_arguments(model, prompt=random_tokens(11), new_tokens=8)
    count = CSimModule(top)(*(laid_out(b, arguments[b.name]) for b in top.function(top.top).inputs))
    expected = ReferenceLlama(model.weights).generate(random_tokens(11), 8, model.config.eos_token_ids)
    assert len(expected) > 1
    assert arguments["tokens"][:count].tolist() == expected
