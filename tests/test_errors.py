"""The catalogue of errors: every code is raised, explained, and tested for its text and place."""

from __future__ import annotations

import re
from pathlib import Path

import error_page
import pytest

from flexllm_allo.errors import CODES, FlexError, Place, Span, did_you_mean, register_source

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """docs/errors.md by code."""
    parts = re.split(r"^### (?=FX\d{3}:)", error_page.PAGE.read_text(), flags=re.MULTILINE)
    return {part[:5]: part.split("\n## ")[0].strip() for part in parts[1:]}


@pytest.mark.parametrize("code", CODES)
def test_text_and_place(code: str, sections: dict[str, str]) -> None:
    """What the example prints now is what the page shows: message, line, caret, hint."""
    text = error_page.message(code)
    assert re.match(rf"\w+Error {code}: ", text)
    assert sections[code] == error_page.section(code, text), "run: python tests/error_page.py"


def test_the_page_is_complete_and_in_order(sections: dict[str, str]) -> None:
    assert list(sections) == list(CODES)
    assert error_page.PAGE.read_text().startswith(error_page.head())


def test_every_code_is_raised_and_every_raised_code_is_known() -> None:
    raised: set[str] = set()
    for path in [*ROOT.glob("flexllm_allo/**/*.py"), *ROOT.glob("models/*.py"), *ROOT.glob("schedules/*.py")]:
        if path.name != "errors.py":
            raised |= set(re.findall(r'"(FX\d{3})"', path.read_text()))
    assert raised == set(CODES)


def test_places_are_drawn_with_their_labels() -> None:
    register_source("<drawn>", "a = b\nc = d + e\n")
    places = [Place(Span("<drawn>", 2, 4, 2, 9), "the sum"), Span("<drawn>", 1, 0, 1, 5)]
    error = FlexError("FX104", "no", places, "do it")
    assert str(error) == (
        "FlexError FX104: no\n"
        "  --> <drawn>:2:5\n    2 | c = d + e\n      |     ^^^^^ the sum\n"
        "  --> <drawn>:1:1\n    1 | a = b\n      | ^^^^^\n"
        "  help: do it"
    )
    assert error.span == places[0].span  # pyright: ignore[reportAttributeAccessIssue]


def test_near_names_are_offered() -> None:
    assert did_you_mean("rwo", ["row", "col"]) == 'did you mean "row"?'
    assert did_you_mean("xyz", ["row", "col"]) == "known names: col, row"
    assert did_you_mean("xyz", []) == "there are none"
