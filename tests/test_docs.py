"""The Python blocks of README and docs run, each file from top to bottom; lists are complete."""

from __future__ import annotations

import linecache
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import schedule_page

from flexllm_allo.kernels.attention import attend_static
from flexllm_allo.kernels.quantize import quantize_minimum
from flexllm_allo.kernels.rotate import rotate_quantize
from flexllm_allo.models import load_checkpoint
from flexllm_allo.models.calibrate import Calibration, calibration_tokens
from flexllm_allo.models.operators import operators
from flexllm_allo.quant import quantize, recipes
from flexllm_allo.quant.recipe_file import parse_recipe

ROOT = Path(__file__).parents[1]
TINY = ROOT / "models" / "tiny"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
MADE_OF_EXAMPLES_RUN_ELSEWHERE = {"errors.md", "schedules.md"}  # by test_errors and as doctests


def blocks(text: str, language: str = "python") -> Iterator[tuple[int, str]]:
    """Number of lines before each block, and the block."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
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


QUANTIZATION = (ROOT / "docs" / "quantization.md").read_text()


def test_table_of_recipes_is_that_of_the_package() -> None:
    _, _, below = QUANTIZATION.partition("| recipe | description | passes |\n|---|---|---|\n")
    rows = below.partition("\n\n")[0].splitlines()
    assert rows == [
        f"| `{r.name}` | {r.description} | {', '.join(type(p).__name__ for p in r.passes) or 'none'} |"
        for r in recipes.values()
    ]


def test_recipe_files_on_the_page_are_what_the_page_says() -> None:
    mine, rotated = (parse_recipe(text) for _, text in blocks(QUANTIZATION, "toml"))
    checkpoint = load_checkpoint(TINY)
    model = quantize(checkpoint, mine, calibration_tokens(checkpoint, Calibration(samples=2, length=64)))
    assert [int(model.weight("wq", i).codes.max()) for i in (1, 2)] == [15, 7]  # layer 2 has three bits
    assert model.weight("wq").scale.shape == (192, 192 // 32)
    assert int(model.weight("w_down").codes.max()) > 100  # of eight bits, in every layer but that one
    assert model.weight("w_head").format is None
    graph = operators(rotated)
    assert graph.down.quantize is rotate_quantize
    assert graph.down.inner is not None
    assert graph.down.inner.quantize is quantize_minimum
    assert graph.attend is attend_static
