"""A whole language model as HLS C++: the spatial design computes what the CPU computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.models import load
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedules import decode, prefill

TINY = Path(__file__).parent.parent / "models" / "tiny"


def test_hardware_schedules_generate_the_tokens_of_the_cpu() -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    model = load(TINY, "w8a8kv8")
    top = hybrid(model, prefill.spatial(8, 16), decode.temporal(16)).top
    arguments = golden_arguments(model)
    length, wanted = arguments["n_prompt"], arguments["max_new_tokens"]
    made = CSimModule(top)(*(arguments[b.name] for b in top.function(top.top).inputs))
    expected = Session(model).generate(arguments["prompt"][:length].tolist(), wanted).tokens
    assert made == len(expected)
    np.testing.assert_array_equal(arguments["tokens"][:made], expected)
