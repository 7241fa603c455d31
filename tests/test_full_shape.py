"""Llama-3.2-1B at full shape: planned and emitted in seconds, and valid C++."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cpp_syntax import check_syntax

from flexllm_allo.errors import ModelError
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import build_project

SECONDS, LINES = 30.0, 4000


@pytest.mark.parametrize("recipe", ["w4a4kv8", "w4a8kv8"])
def test_the_project_of_the_full_shape(tmp_path: Path, recipe: str) -> None:
    begin = time.process_time()
    out = build_project(Path("llama-3.2-1b"), tmp_path / "p", recipe=recipe, max_seq_len=2048)
    assert time.process_time() - begin < SECONDS
    code = (out / "kernel.cpp").read_text()
    assert code.count("\n") < LINES
    assert "[128256]" in code
    check_syntax(out)


def test_an_architecture_has_shapes_only() -> None:
    model = architecture("llama-3.2-1b", max_seq_len=16)
    with pytest.raises(ModelError, match="has no weights") as caught:
        _ = model.constants
    assert caught.value.code == "FX602"
    with pytest.raises(ModelError, match="has no tokenizer"):
        model.checkpoint.encode("x")
    with pytest.raises(ModelError, match=r"no architecture 'llama-3\.2-1c'") as caught:
        architecture("llama-3.2-1c")
    assert "llama-3.2-1b" in caught.value.hint
