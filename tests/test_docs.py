"""The Python blocks of README and docs run, each file from top to bottom; the schedule page is complete."""

from __future__ import annotations

import linecache
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import schedule_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
MADE_OF_EXAMPLES_RUN_ELSEWHERE = {"errors.md", "schedules.md"}  # by test_errors and as doctests


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Number of lines before each block, and the block."""
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)), match.group(1)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_of_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if page.name in MADE_OF_EXAMPLES_RUN_ELSEWHERE:
        return
    found = list(blocks(page.read_text()))
    lines: list[str] = []
    for before, code in found:  # the page's own line numbers
        lines += [""] * (before - len(lines)) + code.splitlines()
    name = f"<{page.name}>"
    linecache.cache[name] = (0, None, [f"{line}\n" for line in lines], name)
    module = types.ModuleType(page.stem)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    for before, code in found:
        exec(compile("\n" * before + code, name, "exec"), module.__dict__)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_schedule_page_is_made_from_the_docstrings() -> None:
    assert schedule_page.PAGE.read_text() == schedule_page.page(), "run: python tests/schedule_page.py"
