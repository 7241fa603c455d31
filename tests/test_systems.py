"""Published accelerators: published bytes, predictions, and what is missing where one misses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.hardware.devices import device
from flexllm_allo.models import architecture
from flexllm_allo.quant.recipes import get_recipe
from flexllm_allo.runtime.systems import NEAR, matrices, predictions, systems, weight_bytes

FOUND = predictions()
BY_KEY = {system.key: system for system in systems()}


def best(key: str, published: float):
    rows = [p for p in FOUND if p.system.key == key and p.rate.tokens_per_second == published]
    return min(rows, key=lambda p: abs(p.ratio - 1))


def test_matrices_of_a_token() -> None:
    """Those of published models: 6.607 G of Llama-2-7B, 354 M of GPT-2 Medium, 1.236 G of Llama-3.2-1B."""
    counts = {key: sum(r * c for r, c, _ in matrices(BY_KEY[key].config)) for key in ("accllm", "dfx")}
    assert counts["accllm"] == 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    assert counts["dfx"] == 24 * 12 * 1024**2 + 50257 * 1024
    small = architecture("llama-3.2-1b").config
    assert sum(r * c for r, c, _ in matrices(small)) == 973_078_528 + 128256 * 2048


@pytest.mark.parametrize(
    ("key", "number", "gigabytes"), [("accllm", 1, 1.652), ("accllm", 2, 1.445), ("llama-fpga", 0, 3.433)]
)
def test_bytes_that_are_published(key: str, number: int, gigabytes: float) -> None:
    system = BY_KEY[key]
    found = weight_bytes(system, system.assumptions[number]) / 1e9
    assert found == pytest.approx(gigabytes, abs=0.0005)


def test_a_recipe_of_ours_counts_as_everywhere_else() -> None:
    """w2a8kv4: what the storage formats say, with the head in the format of the head."""
    system, recipe = BY_KEY["accllm"], get_recipe("w2a8kv4")
    assert recipe.weight is not None
    assert recipe.head is not None
    layers = 32 * (4 * 4096**2 + 2 * 4096 * 11008)
    bits = layers * recipe.weight.bits_per_weight(4096)
    bits += 32 * 4096 * 11008 * recipe.weight.bits_per_weight(11008)
    bits += 32000 * 4096 * recipe.head.bits_per_weight(4096)
    assert weight_bytes(system, system.assumptions[0]) == pytest.approx(bits / 8)


def test_predictions_are_ceilings_of_documented_constants() -> None:
    """No efficiency is that of the system which is predicted."""
    for p in FOUND:
        card = device(p.system.device)
        assert p.binds == "memory"
        assert card.memory.gb_per_s is not None
        assert p.tokens_per_second == pytest.approx(card.memory.gb_per_s * p.efficiency / p.gb_per_token)
        assert p.efficiency in (card.memory.efficiency, 0.35, 0.4008)


@pytest.mark.parametrize(
    ("key", "published", "ratio"),
    [
        ("accllm", 164.0, 1.07),
        ("flightllm", 57.1, 0.93),
        ("flightllm", 52.7, 0.98),
        ("flightllm-vhk158", 92.5, 1.025),
        ("llama-fpga", 4.9, 0.97),
    ],
)
def test_rates_that_an_assumption_lands_on(key: str, published: float, ratio: float) -> None:
    assert best(key, published).ratio == pytest.approx(ratio, abs=0.01)
    assert best(key, published).lands


def test_what_misses_says_what_is_missing() -> None:
    missed = [p for p in FOUND if not p.lands]
    assert {p.system.name for p in missed} == {"AccLLM", "FlightLLM", "DFX"}
    for p in missed:
        assert abs(p.ratio - 1) > NEAR
        assert len(p.assumption.missing) > 40, p.assumption.what
        assert p.to_dict()["missing"] == p.assumption.missing
    dfx = best("dfx", 185.19)
    assert dfx.ratio == pytest.approx(2.46, abs=0.01)
    assert dfx.assumption.missing.startswith("the latency between the dependent steps of a layer")


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    out = tmp_path / "systems.json"
    ran = CliRunner().invoke(cli.app, ["systems", "--json", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "AccLLM" in ran.output
    rows = json.loads(out.read_text())["predictions"]
    assert len(rows) == len(FOUND)
    assert {row["within_15_percent"] for row in rows} == {True, False}
    assert all(row["missing"] for row in rows if not row["within_15_percent"])
