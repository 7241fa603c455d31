"""The search: its way up against all settings, what nothing beats, and the command."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import EstimateError, UsageError
from flexllm_allo.estimate.search import GAIN, Candidate, Parameters, climb, last_that_fits, pareto
from flexllm_allo.hardware.devices import Resources
from flexllm_allo.runtime.estimate import estimate_model
from flexllm_allo.runtime.preset import get_preset
from flexllm_allo.runtime.search import tune as tuning
from flexllm_allo.runtime.search.tune import Tuned, tune, tune_rows

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


@pytest.mark.parametrize("seed", range(10))
def test_the_way_up_is_the_optimum_of_an_integer_program(seed: int) -> None:
    """Ten parts, five resources: too many settings to try them all, so HiGHS says what the best one is."""
    random = np.random.default_rng(seed)
    lanes = [1, 2, 3, 4, 6, 8, 12, 16]
    work = {name: int(random.integers(1_000, 1_000_000)) for name in "abcdefghij"}
    taken = {name: random.integers(1, 50, 5) for name in work}  # of every resource, by a lane
    caps = sum(taken.values()) * random.uniform(1.5, 8.0, 5)

    def evaluate(parameters: Parameters) -> Candidate:
        busy = {name: amount / parameters[name] for name, amount in work.items()}
        used = sum(taken[name] * parameters[name] for name in work)
        return Candidate("parts", parameters, max(busy.values()), 0, Resources(*used.tolist()), NONE, busy)

    knobs = {name: [{name: n} for n in lanes] for name in work}
    found = climb({}, knobs, evaluate, lambda c: all(np.array(c.resources.counts()) <= caps))
    # Variables: whether a part has a number of lanes, part by part, and the time of the slowest one.
    chosen = [(name, n) for name in work for n in lanes]
    one_each = [[float(name == part) for part, _ in chosen] + [0.0] for name in work]
    times = [[work[p] / n * (name == p) for p, n in chosen] + [-1.0] for name in work]
    sizes = np.array([[*(taken[p] * n for p, n in chosen), np.zeros(5)]]).reshape(-1, 5).T
    best = milp(
        np.array([0.0] * len(chosen) + [1.0]),
        integrality=np.array([1] * len(chosen) + [0]),
        bounds=Bounds(0, [1.0] * len(chosen) + [np.inf]),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(times, ub=0),
            LinearConstraint(sizes, ub=caps),
        ],
    )
    assert best.success, best.message
    # A raise has to gain half a percent, and the program is solved to a gap.
    assert min(c.cycles for c in found) == pytest.approx(best.fun, rel=2 * GAIN)


def test_choices_in_between_are_bisected() -> None:
    """Where the next choice does not fit, the last one before it that does is found in a few steps."""
    tried: list[int] = []

    def evaluate(parameters: Parameters) -> Candidate:
        tried.append(parameters["a"])
        return pipeline({"a": 10_000})(parameters)  # type: ignore[operator]

    knobs = {"a": [{"a": 1}, {"a": 64}, {"a": 128}]}
    for cap in (64, 65, 90, 126, 127):
        tried.clear()
        found = climb(
            {},
            knobs,
            evaluate,
            lambda c, cap=cap: c.resources.dsp <= cap,
            lambda _name, low, high: [{"a": n} for n in range(low["a"] + 1, high["a"])],
        )
        assert found[-1].parameters == {"a": cap}
        assert len(tried) <= 3 + 6
    assert last_that_fits([], evaluate, lambda _: True) is None
    assert last_that_fits([{"a": 5}], evaluate, lambda _: False) is None


def test_what_does_not_fit_ends_the_search_at_once() -> None:
    (only,) = climb({"a": 1}, {"a": [{"a": 1}, {"a": 2}]}, pipeline({"a": 9}), lambda _: False)  # type: ignore[arg-type]
    assert only.parameters == {"a": 1}


def test_pareto() -> None:
    points = [(3, 1), (1, 3), (2, 2), (2, 3), (3, 3), (1, 3)]
    assert pareto(points, lambda p: p) == [(3, 1), (1, 3), (2, 2)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Tuned]:
    """A preset, what the command printed, and what the search found."""
    file, found = tmp_path_factory.mktemp("tune") / "mine.toml", list[Tuned]()

    def recorded(*args: Any, **options: Any) -> Tuned:
        found.append(tune(*args, **options))
        return found[-1]

    command = ["tune", str(TINY), "--recipe", "w4a8kv8", "--prompt", "16", "--new-tokens", "8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "tune", recorded)
        ran = CliRunner().invoke(cli.app, [*command, "--device", "u280", "--out", str(file)])
    assert ran.exit_code == 0, ran.output
    return file, ran.output, found[0]


def test_the_command_writes_a_preset_that_fits(written: tuple[Path, str, Tuned]) -> None:
    file, output, _ = written
    preset = get_preset(str(file))
    assert (preset.name, preset.device, preset.recipe) == ("mine", "u280", "w4a8kv8")
    assert "binds:" in output
    assert "stages estimated in" in output
    assert "over" not in output.split("binds:")[1].split("phase")[0]


def test_the_search_beats_the_default_design_at_what_was_asked_for(written: tuple[Path, str, Tuned]) -> None:
    default = estimate_model(TINY, "u280", 16, 8, recipe="w4a8kv8")
    *_, found = written
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
