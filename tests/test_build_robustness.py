"""Builds that are killed, run out of disk or meet another build: the previous project survives."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flexllm_allo import staging
from flexllm_allo.errors import UsageError
from flexllm_allo.runtime.build import build_project
from flexllm_allo.staging import StagedFolder

TINY = Path(__file__).parent.parent / "models" / "tiny"

KILLED = """
import os, signal, sys
from pathlib import Path
from flexllm_allo.runtime.build import build_project
from flexllm_allo.staging import StagedFolder

real, left = StagedFolder.write, [int(sys.argv[3])]
def write(self, name, chunks):
    def cut():
        for chunk in chunks:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk
    real(self, name, cut())
StagedFolder.write = write
build_project(Path(sys.argv[1]), Path(sys.argv[2]), recipe="w4a8kv8", max_seq_len=32)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The project that every one of these builds should end with."""
    out = tmp_path_factory.mktemp("built") / "p"
    return contents(build_project(TINY, out, recipe="w4a8kv8", max_seq_len=32))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder with an earlier project: of an architecture, hence quick to make."""
    out = tmp_path / "p"
    return build_project(Path("llama-3.2-1b"), out, recipe="w4a8kv8", max_seq_len=16)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("after", [3, 30, 60, 100])
def test_kill_9_leaves_the_old_project_and_the_next_build_ends(
    older: Path, built: dict[str, bytes], after: int
) -> None:
    before = contents(older)
    command = [sys.executable, "-P", "-c", KILLED, str(TINY), str(older), str(after)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert contents(older) == before
    build_project(TINY, older, recipe="w4a8kv8", max_seq_len=32)
    assert contents(older) == built
    assert names(older.parent) == ["p"]


def test_a_killed_build_leaves_finished_channels_for_the_next(
    tmp_path: Path, built: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p"
    real, written = StagedFolder.write, []

    def write(self: StagedFolder, name: str, chunks) -> None:
        if name == "weights/hbm03.bin" and "stop" not in written:
            written.append("stop")
            raise KeyboardInterrupt
        written.append(name)
        real(self, name, chunks)

    monkeypatch.setattr(StagedFolder, "write", write)
    with pytest.raises(KeyboardInterrupt):
        build_project(TINY, out, recipe="w4a8kv8", max_seq_len=32)
    assert not out.exists()
    first = [n for n in written if n.startswith("weights/")]
    assert first
    written[:] = ["stop"]
    build_project(TINY, out, recipe="w4a8kv8", max_seq_len=32)
    assert not set(first) & set(written)
    assert not [n for n in written if n.startswith("layer-")]  # nor was the model quantized again
    assert contents(out) == built


@pytest.mark.parametrize("after", [2, 40])
def test_a_full_disk_leaves_the_old_project_and_says_so(
    older: Path, built: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before = contents(older)
    left = [after]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(staging.os, "fsync", fsync)
        with pytest.raises(UsageError, match="No space left on device") as caught:
            build_project(TINY, older, recipe="w4a8kv8", max_seq_len=32)
    assert caught.value.code == "FX702"
    assert "the same command goes on from there" in caught.value.hint
    assert contents(older) == before
    build_project(TINY, older, recipe="w4a8kv8", max_seq_len=32)
    assert contents(older) == built


def test_a_second_build_in_the_same_folder_is_refused(older: Path) -> None:
    before = contents(older)
    with StagedFolder(older, "manifest.json"), pytest.raises(UsageError, match="another process") as caught:
        build_project(Path("llama-3.2-1b"), older, recipe="w4a4kv8", max_seq_len=16)
    assert caught.value.code == "FX702"
    assert "wait for it to end" in caught.value.hint
    assert contents(older) == before


def test_the_same_build_again_keeps_what_tools_have_made(older: Path) -> None:
    (older / "csynth.log").write_text("hours of work")
    build_project(Path("llama-3.2-1b"), older, recipe="w4a8kv8", max_seq_len=16)
    assert (older / "csynth.log").read_text() == "hours of work"
    (older / "kernel.cpp").unlink()
    build_project(Path("llama-3.2-1b"), older, recipe="w4a8kv8", max_seq_len=16)
    assert (older / "kernel.cpp").is_file()
    assert not (older / "csynth.log").exists()
