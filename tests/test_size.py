"""How much Python the designs take: lines of code, without blank lines, comments and docstrings."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> dict[int, str]:
    """The lines of a module that hold code, by number."""
    documented = set[int]()
    for node in ast.walk(ast.parse(text)):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                documented |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    numbered = dict(enumerate(text.splitlines(), 1))
    return {number: numbered[number] for number in sorted(lines - documented)}


def size(*paths: str) -> int:
    return sum(len(code_lines((ROOT / path).read_text())) for path in paths)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Module."""\n\nx = 1  # one\n# none\n', 1),
        ('def f():\n    """Two\n    lines."""\n    return (\n        1,\n    )\n', 4),
        ('x = 1\n"""About x."""\ny = """a\nb"""\n', 3),
    ],
)
def test_what_counts(text: str, expected: int) -> None:
    assert len(code_lines(text)) == expected


def test_the_top_and_both_hardware_schedules_take_300_lines() -> None:
    """The graph of all families with its tops, all that both stages are made of, and what a user writes."""
    user = code_lines('hybrid(load("folder"), prefill.spatial(8, 16), decode.temporal(64))\n')
    others = {"schedules/cpu.py", "schedules/flexllm.py", "schedules/engine.py"}  # of other designs
    stages = {f"schedules/{path.name}" for path in (ROOT / "schedules").glob("*.py")} - others
    assert len(stages) >= 6
    assert size("models/llama.py", *stages) + len(user) <= 300


QWEN3 = re.compile(r"\bQWEN3\b|qk_norm|q_norm|k_norm|HeadNorm|NoNorm|norm_heads")


def test_qwen3_takes_40_lines() -> None:
    """Its record, the kernel that it alone needs, and every other line that names what it alone has."""
    found = 0
    for room in ("models", "kernels", "schedules", "flexllm_allo/quant"):
        for path in sorted((ROOT / room).rglob("*.py")):
            lines = code_lines(path.read_text())
            wanted = {number for number, line in lines.items() if QWEN3.search(line)}
            for node in ast.parse(path.read_text()).body:
                name = getattr(node, "name", ast.unparse(node).partition(" ")[0])
                if name in ("QWEN3", "norm_heads", "NoNorm"):
                    first = min(n.lineno for n in ast.walk(node) if hasattr(n, "lineno"))
                    wanted |= set(range(first, (node.end_lineno or 0) + 1)) & set(lines)
            found += len(wanted)
    assert 25 < found <= 40
