"""The lessons in examples/ run, print, and stay short enough to be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
LESSONS = sorted(FOLDER.glob("[0-9]*.py"))


def test_there_are_ten_in_order() -> None:
    assert [path.name[:2] for path in LESSONS] == [f"{n:02}" for n in range(1, 11)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson(path: Path, tmp_path: Path) -> None:
    lines = path.read_text().splitlines()
    assert 20 <= len([line for line in lines if line.strip()]) <= 45
    assert lines[0].startswith(f'"""Lesson {int(path.name[:2])}: ')
    assert any("assert" in line for line in lines)
    command = [sys.executable, "-P", "-W", "error", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_the_whole_way_to_a_project(tmp_path: Path) -> None:
    path = FOLDER / "llama_u280.py"
    assert 20 <= len([line for line in path.read_text().splitlines() if line.strip()]) <= 45
    command = [sys.executable, "-P", "-W", "error", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "> The import statement" in done.stdout
    assert "wq_codes" in done.stdout
    assert (tmp_path / "llama_u280" / "kernel.cpp").is_file()
