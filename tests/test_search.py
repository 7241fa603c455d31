"""The search: its way up against all settings, what nothing beats, and the command."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import EstimateError, UsageError
from flexllm_allo.estimate.search import Candidate, Parameters, climb, pareto
from flexllm_allo.hardware.devices import Resources
from flexllm_allo.runtime.estimate import estimate_model
from flexllm_allo.runtime.preset import get_preset
from flexllm_allo.runtime.tune import tune, tune_rows

TINY = Path(__file__).parents[1] / "models" / "tiny"
NONE = Resources(0, 0, 0, 0, 0)


def pipeline(work: dict[str, int]) -> object:
    """Parts that work at the same time; a lane is a DSP."""

    def evaluate(parameters: Parameters) -> Candidate:
        busy = {name: -(-amount // parameters[name]) for name, amount in work.items()}
        used = Resources(0, 0, sum(parameters.values()), 0, 0)
        return Candidate("parts", parameters, max(busy.values()), 0, used, NONE, busy)

    return evaluate


@pytest.mark.parametrize("seed", range(20))
def test_the_way_up_ends_at_the_best_setting(seed: int) -> None:
    random = np.random.default_rng(seed)
    work = {name: int(random.integers(1_000, 1_000_000)) for name in "abcd"}
    lanes, cap = [1, 2, 4, 8, 16, 32], int(random.integers(4, 100))
    evaluate = pipeline(work)
    knobs = {name: [{name: n} for n in lanes] for name in work}
    found = climb({}, knobs, evaluate, lambda c: c.resources.dsp <= cap)  # type: ignore[arg-type]
    settings = (dict(zip(work, chosen, strict=True)) for chosen in product(lanes, repeat=len(work)))
    best = min(evaluate(s).cycles for s in settings if sum(s.values()) <= cap)  # type: ignore[operator]
    assert min(c.cycles for c in found) == best
    assert [c.cycles for c in found] == sorted((c.cycles for c in found), reverse=True)


def test_what_does_not_fit_ends_the_search_at_once() -> None:
    (only,) = climb({"a": 1}, {"a": [{"a": 1}, {"a": 2}]}, pipeline({"a": 9}), lambda _: False)  # type: ignore[arg-type]
    assert only.parameters == {"a": 1}


def test_pareto() -> None:
    points = [(3, 1), (1, 3), (2, 2), (2, 3), (3, 3), (1, 3)]
    assert pareto(points, lambda p: p) == [(3, 1), (1, 3), (2, 2)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("tune") / "mine.toml"
    command = ["tune", str(TINY), "--recipe", "w4a8kv8", "--prompt", "16", "--new-tokens", "8"]
    ran = CliRunner().invoke(cli.app, [*command, "--device", "u280", "--out", str(file)])
    assert ran.exit_code == 0, ran.output
    return file, ran.output


def test_the_command_writes_a_preset_that_fits(written: tuple[Path, str]) -> None:
    file, output = written
    preset = get_preset(str(file))
    assert (preset.name, preset.device, preset.recipe) == ("mine", "u280", "w4a8kv8")
    assert "binds:" in output
    assert "stages estimated in" in output
    assert "over" not in output.split("binds:")[1].split("phase")[0]


def test_the_search_beats_the_default_design_at_what_was_asked_for() -> None:
    default = estimate_model(TINY, "u280", 16, 8, recipe="w4a8kv8")
    found = tune(TINY, "u280", 16, 8, recipe="w4a8kv8", objective="latency")
    assert found.tried > 10
    assert found.estimate.cycles < default.cycles
    assert len(tune_rows(found)) <= 12
    fronts = [(p.prefill_s, p.decode_s) for p in found.front]
    assert fronts == sorted(fronts)
    best = min(p.prefill_s + p.decode_s for p in found.front)
    # Both stages by themselves are what they are together.
    assert found.estimate.cycles / found.preset.clock_mhz / 1e6 == pytest.approx(best, rel=0.02)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match='FX703: there is no objective "speed"'):
        tune(TINY, objective="speed")
    with pytest.raises(UsageError, match='FX703: there is no mode "shred"'):
        tune(TINY, mode="shred")
    with pytest.raises(
        EstimateError, match=r"FX910: the design does not fit the .*KV260.* LUT [\d,]+ of"
    ) as caught:
        tune(Path("llama-3.2-1b"), "kv260", 128, 8, recipe="w4a4kv8")
    assert "it fits" in caught.value.hint
