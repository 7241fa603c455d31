"""`benchmarks/perplexity.py --check`: what is the same to 4 digits, and what it says otherwise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("perplexity_benchmark", FOLDER / "perplexity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(ppl, name="rtn"):
    return {"tiny": {"none": {"ppl": 26.9382}, name: {"ppl": ppl}}}


def test_equal_numbers_are_counted(benchmark, capsys):
    benchmark._check(results(371.6928), results(371.7101), Path("stored.json"))
    assert capsys.readouterr().out == (
        "2 perplexities, the same to 4 digits as stored.json (1 in every digit)\n"
    )


@pytest.mark.parametrize(("stored", "known"), [(results(371.8), "371.8"), (results(1.0, "other"), "nan")])
def test_other_numbers_are_named(benchmark, stored, known):
    with pytest.raises(SystemExit) as stopped:
        benchmark._check(results(371.6928), stored, Path("stored.json"))
    assert str(stopped.value) == f"not the same as stored.json:\ntiny: rtn 371.6928, not {known}"


def test_every_recipe_is_in_the_file(benchmark):
    stored = json.loads((FOLDER / "perplexity.json").read_text(encoding="utf-8"))["results"]
    assert set(stored) == {"tiny", "tiny with outliers"}
    for rows in stored.values():
        assert set(benchmark.recipes) <= set(rows)
