"""FLEXLLM_ALLO_ENGINE=allo: the public names become those of an installed Allo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STUB = {
    "allo/__init__.py": """
def customize(fn):
    return f"allo schedules {fn}"


def grid(*extents):
    return "grid"
""",
    "allo/ir/__init__.py": "",
    "allo/ir/types.py": """
class Int:
    pass


int8 = "the int8 of allo"
""",
}


def python(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    for name, text in STUB.items():
        path = tmp_path / "stub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "stub"


USE = """
import flexllm_allo as allo
from flexllm_allo.ir.types import int8, Int, UInt

print(allo.customize("f"), allo.grid(1), int8, Int.__module__, UInt.__module__, allo.params.__module__)
"""


def test_public_names_are_allos_where_it_has_them(stub: Path, tmp_path: Path) -> None:
    done = python(USE, tmp_path, FLEXLLM_ALLO_ENGINE="allo", PYTHONPATH=str(stub))
    ours = "flexllm_allo.ir.dtypes flexllm_allo.dsl"
    assert done.stderr == ""
    assert done.stdout == f"allo schedules f grid the int8 of allo allo.ir.types {ours}\n"


def test_ours_without_the_switch(stub: Path, tmp_path: Path) -> None:
    for value in ("", "flexllm"):
        code = "import flexllm_allo as allo; print(allo.customize.__module__)"
        done = python(code, tmp_path, FLEXLLM_ALLO_ENGINE=value, PYTHONPATH=str(stub))
        assert done.stdout == "flexllm_allo.customize\n"


def test_without_allo_the_switch_is_refused(tmp_path: Path) -> None:
    code = "import sys; sys.modules['allo'] = None; import flexllm_allo"
    done = python(code, tmp_path, FLEXLLM_ALLO_ENGINE="allo")
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()[-2:]
    assert "ToolError FX501: FLEXLLM_ALLO_ENGINE=allo, and Allo cannot be imported: " in message
    assert hint == "  help: install Allo in this environment, or unset FLEXLLM_ALLO_ENGINE"


def test_other_engines_are_refused(tmp_path: Path) -> None:
    done = python("import flexllm_allo", tmp_path, FLEXLLM_ALLO_ENGINE="heterocl")
    assert 'UsageError FX703: FLEXLLM_ALLO_ENGINE is "heterocl"' in done.stderr
    assert '"flexllm" or "allo"' in done.stderr
