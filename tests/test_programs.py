"""Programs as users of the language write them: each file of `polybench` and `machsuite` checks itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted([*HERE.glob("polybench/*.py"), *HERE.glob("machsuite/*.py")])


def test_all_programs_are_here():
    assert len(FILES) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_program(file: Path):
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.check()
