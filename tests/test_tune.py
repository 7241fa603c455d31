"""The designs of a search: the best pair against an integer program, what bounds rule out, shared engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_syntax import check_syntax
from scipy.optimize import Bounds, LinearConstraint, milp

from flexllm_allo.estimate.need import fullest
from flexllm_allo.estimate.search import Candidate, pareto
from flexllm_allo.hardware.devices import Caps, Device, Resources, device
from flexllm_allo.models import Model
from flexllm_allo.runtime.build import build_project
from flexllm_allo.runtime.estimate import open_model
from flexllm_allo.runtime.preset import Preset, StagePreset, get_preset, preset_to_toml, preset_top
from flexllm_allo.runtime.search import tune as tuning
from flexllm_allo.runtime.search.candidates import candidate
from flexllm_allo.runtime.search.pairs import Pair
from flexllm_allo.runtime.search.space import Climb, Space
from flexllm_allo.runtime.search.tune import Search, tune

TINY = Path(__file__).parents[1] / "models" / "tiny"


@pytest.fixture(scope="module")
def llama() -> Model:
    return open_model(Path("llama-3.2-1b"), "w4a4kv8", 1024, 1024)


def invented(seed: int, card: Device) -> Callable[..., Candidate]:
    """Stands for the estimate of a stage: times and sizes of no real design, as fast as the bounds allow."""
    random = np.random.default_rng(seed)
    scales = dict(zip(("prefill", "decode"), random.uniform(0.5, 4.0, 2), strict=True))
    attention, lanes = random.uniform(0, 3e9), random.uniform(0, 9e9)
    ports = Resources(*(n // 100 for n in card.available.counts()))

    def make(
        preset: Preset, model: Model, stage: str, card: Device, mhz: float, scalars: dict[str, int], **_: Any
    ) -> Candidate:
        chosen = getattr(preset, stage)
        p = chosen.parameters
        if stage == "prefill":
            blocks = -(-scalars["n_prompt"] // p["token_parallel"])
            linear = blocks * 16 * max(2048 * 8192 / p["weight_parallel"], p["cycles"] / 2)
            busy = {
                "linear": linear,
                "attention": attention / p["head_parallel"],
                "lanes": lanes / p["lanes"],
            }
            cycles = max(busy.values()) if chosen.schedule == "spatial" else 5 * linear + sum(busy.values())
            size = (
                p["token_parallel"] / 8 * (1 + 278528 / p["cycles"] / 4) + p["head_parallel"] + p["lanes"] / 8
            )
        else:
            multipliers = p.get("ports", 1) * p.get("split", 1) * p.get("weight_parallel", 64)
            elements = p.get("block", 16 * p.get("lanes", 1))
            busy = {"linear": 1.2e9 / multipliers, "lanes": 1e8 / elements}
            cycles = busy["linear"] + busy["lanes"]
            size = multipliers / 512 + elements / 16
        shares = scales[stage] * size / 60 * random_shares(seed, stage)
        used = [int(share * n) for share, n in zip(shares, card.available.counts(), strict=True)]
        return Candidate(chosen.schedule, p, cycles, 1e9, Resources(*used) + ports, ports, busy)

    return make


def random_shares(seed: int, stage: str) -> np.ndarray:
    """How much of each resource a stage takes, in proportion."""
    return np.random.default_rng([seed, len(stage)]).uniform(0.3, 1.0, 5)


def searched(space: Space, monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> tuple[Search, list[Pair]]:
    for name, value in replaced.items():
        monkeypatch.setattr(tuning, name, value)
    search = Search(space, "latency", lambda _done, _total: None)
    return search, search.pairs()


def optimum(search: Search, card: Device) -> float:
    """The least latency of a prefill and a decode that fit the card together, as a 0/1 program."""
    first, second = search.found["prefill"], search.found["decode"]
    steps, mhz = search.space.new_tokens - 1, search.space.mhz * 1e6
    seconds = [c.cycles / mhz for c in first] + [c.cycles * steps / mhz for c in second]
    alone = [c.resources - c.ports for c in first] + [c.resources for c in second]  # they share the ports
    choice = np.array([[1] * len(first) + [0] * len(second), [0] * len(first) + [1] * len(second)])
    names = ("lut", "ff", "dsp", "bram18", "uram")
    caps = [card.caps.share(n) * there for n, there in zip(names, card.available.counts(), strict=True)]
    found = milp(
        np.array(seconds),
        integrality=np.ones(len(seconds)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(choice, 1, 1),
            LinearConstraint(np.array([c.counts() for c in alone]).T, ub=np.floor(caps)),
        ],
    )
    assert found.success, found.message
    return found.fun


def test_the_best_pair_is_the_optimum_of_an_integer_program(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, bound = device("u280"), 0
    for seed in range(16):
        space = Space(llama, card, 1024, 128, 300.0, "resident")
        search, pairs = searched(space, monkeypatch, candidate=invented(seed, card))
        best = min(pairs, key=lambda p: p.cost("latency"))
        assert best.prefill_s + best.decode_s == pytest.approx(optimum(search, card), rel=1e-9), seed
        fastest = [min(c.cycles for c in search.found[stage]) for stage in ("prefill", "decode")]
        bound += [best.prefill.cycles, best.decode.cycles] != fastest
    assert bound >= 4  # seeds whose fastest stages the card does not hold together


def test_a_small_model_on_a_small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of real estimates: caps that both of the fastest stages exceed together."""
    card = replace(device("u280"), caps=Caps(lut=0.19, ff=0.14, dsp=0.12, bram18=0.2))
    space = Space(open_model(TINY, "w4a8kv8", 16, 8), card, 16, 8, 300.0, "resident")

    def few(ways: Callable[[Space], Any]) -> Callable[[Space], list[Climb]]:
        """The longest blocks and operators that take turns, knobs with two choices."""

        def chosen(space: Space) -> list[Climb]:
            found = list(ways(space))
            return [replace(w, knobs={n: c[::3][:2] for n, c in w.knobs.items()}) for w in found[-1:]]

        return chosen

    monkeypatch.setattr(Space, "prefill", few(Space.prefill))
    monkeypatch.setattr(Space, "decode", few(Space.decode))
    search, pairs = searched(space, monkeypatch)
    best = min(pairs, key=lambda p: p.cost("latency"))
    assert best.prefill_s + best.decode_s == pytest.approx(optimum(search, card), rel=1e-9)
    together = product(*search.found.values())
    assert len(pairs) < len(list(together))


# ---------------------------------------------------------------------------------------- bounds


def test_what_bounds_rule_out_would_be_in_no_table(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    card, fewer = device("v80"), 0
    space = Space(llama, card, 1024, 128, 300.0, "reconfigured")
    assert space.has_engine

    def cost(p: Pair) -> tuple[float, ...]:
        return p.prefill_s, p.decode_s, fullest(card, p.used)[0]

    for seed in range(16):
        some, pairs = searched(space, monkeypatch, candidate=invented(seed, card))
        with monkeypatch.context() as patch:
            patch.setattr(Search, "_is_beaten", lambda _self, _way: False)
            everything, all_pairs = searched(space, monkeypatch)
        fronts = [sorted(map(cost, pareto(found, cost))) for found in (pairs, all_pairs)]
        assert fronts[0] == fronts[1], seed
        for goal in ("latency", "throughput"):
            assert min(p.cost(goal) for p in pairs) == min(p.cost(goal) for p in all_pairs), seed
        fewer += some.tried < everything.tried
    assert 4 <= fewer < 16  # seeds where something is ruled out


def test_no_estimate_is_below_its_bound() -> None:
    model, card = open_model(TINY, "w4a8kv8", 16, 8), device("u280")
    space = Space(model, card, 16, 8, 300.0, "reconfigured")
    for way in space.prefill():
        setting = dict(way.start)
        for choices in way.knobs.values():
            setting |= choices[-1]
        preset = space.preset(prefill=StagePreset(schedule=way.schedule, **setting))
        found = candidate(preset, model, "prefill", card, 300.0, {"n_prompt": 16})
        assert 0 < way.least_cycles <= found.busy["linear"] <= found.cycles, way.schedule


def test_budgets_of_linear_layers_are_their_times() -> None:
    """Layers that are no powers of two have more budgets than halvings; each is what a layer takes."""
    model = open_model(Path("llama-3.2-3b"), "w4a4kv8", 16, 8)
    (way, *_) = Space(model, device("u280"), 16, 8, 300.0, "resident").prefill()
    low, high = way.knobs["linear"][:2]
    between = [choice["cycles"] for choice in way.between("linear", low, high)]
    assert between == [3072 * 8192 // 64 * 3 * 17 // 16, 3072 * 8192 // 24 * 17 // 16]
    assert between == sorted(between, reverse=True)
    assert high["cycles"] < between[-1] < between[0] < low["cycles"]
    assert way.between("lanes", low, high) == ()


# ---------------------------------------------------------------------------------------- shared


def test_a_shared_design_is_found_and_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ways = Space.prefill
    monkeypatch.setattr(
        Space,
        "prefill",
        lambda space: [
            replace(way, knobs={n: c[:2] if n == "linear" else c[:1] for n, c in way.knobs.items()})
            for way in list(ways(space))[-1:]
        ],
    )
    found = tune(TINY, "u280", 16, 8, recipe="w4a8kv8", mode="shared", name="both")
    assert found.preset.mode == "shared"
    assert found.tried == 2
    assert found.estimate.fit
    (pair,) = [p for p in found.front if p.prefill.parameters == found.preset.prefill.parameters]
    assert (found.estimate.prefill_s, found.estimate.resources) == (
        pytest.approx(pair.prefill_s),
        pair.used,
    )  # once, not for each stage
    assert found.estimate.decode_s == pytest.approx(pair.decode_s, rel=0.02)
    file = tmp_path / "both.toml"
    file.write_text(preset_to_toml(found.preset))
    top = preset_top(get_preset(str(file)), open_model(TINY, "w4a8kv8", 16, 8))
    blocks = [dict(f.bindings)["T"] for f in top.top.functions if f.origin == "self_attention"]
    assert blocks == [4]
    out = build_project(TINY, tmp_path / "project", preset=str(file), max_seq_len=24)
    check_syntax(out)
