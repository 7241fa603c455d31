"""Kernels typed at Python's own prompt."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

pytest.importorskip("readline")

SESSION = [
    "import flexllm_allo as allo",
    "from flexllm_allo.ir.types import int32",
    "def twice(a: int32) -> int32:",
    "    return a * 2",
    "",
    "print('result', allo.customize(twice).build()(21))",
    "def wrong(a: int32) -> int32:",
    "    return b",
    "",
    "allo.customize(wrong)",
    "exit()",
]


def test_a_kernel_typed_at_the_prompt_compiles_and_errors_show_its_line(tmp_path):
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-q"], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=tmp_path, close_fds=True
    )
    os.close(slave)
    text, deadline = "", time.monotonic() + 60
    for line in SESSION:
        os.write(master, f"{line}\n".encode())
        while _waiting(process, deadline) and not text.rstrip(" ").endswith((">>>", "...")):
            text += _read(master)
        text += "\n"
    while _waiting(process, deadline):
        text += _read(master)
    text += _read(master)
    process.kill()
    os.close(master)
    assert "result 42" in text
    assert "Variable b not defined in current scope." in text
    assert "|     return b" in text


def _waiting(process, deadline) -> bool:
    return process.poll() is None and time.monotonic() < deadline


def _read(master: int) -> str:
    ready, _, _ = select.select([master], [], [], 0.2)
    try:
        return os.read(master, 65536).decode(errors="replace") if ready else ""
    except OSError:  # the other side has closed
        return ""
