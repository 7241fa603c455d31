"""Programs as users of the language write them: each file of `polybench` and `machsuite` checks itself.

What it runs on the CPU is run by the interpreter too, and must give the same bits; its HLS text is emitted.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter

HERE = Path(__file__).parent
FILES = sorted([*HERE.glob("polybench/*.py"), *HERE.glob("machsuite/*.py")])
build = allo.Schedule.build


class Twice:
    """A CPU module whose calls are checked against the interpreter."""

    def __init__(self, s: allo.Schedule) -> None:
        self.module, self.interpreter = build(s), Interpreter(s.program)
        assert s.top_func_name in build(s, "vhls").hls_code

    def __call__(self, *args: Any) -> Any:
        copies = copy.deepcopy(args)
        results, checked = self.module(*args), self.interpreter(*copies)
        for got, want in zip([results, *args], [checked, *copies], strict=True):
            np.testing.assert_equal(got, want)
        return results


def test_all_programs_are_here():
    assert len(FILES) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_program(file: Path, monkeypatch):
    monkeypatch.setattr(
        allo.Schedule,
        "build",
        lambda s, target=None, *a, **k: build(s, target, *a, **k) if target else Twice(s),
    )
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.check()
