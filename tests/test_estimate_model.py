"""Estimates of whole models: a decode against its arithmetic, the sum over positions, the command."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import EstimateError, ModelError, UsageError
from flexllm_allo.estimate.phases import decode_points
from flexllm_allo.estimate.result import Estimate
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import WORD_ROWS, build_project, hardware_top
from flexllm_allo.runtime.estimate import estimate_model
from flexllm_allo.runtime.search.tune import tune

TINY = Path(__file__).parents[1] / "models" / "tiny"
PROMPT, TOKENS = 64, 33


@pytest.fixture(scope="module")
def full() -> Estimate:
    """Llama-3.2-1B as FlexLLM quantizes it, in the design that `build` writes."""
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 2048))
    return top.schedule.estimate("u280", n_prompt=PROMPT, new_tokens=TOKENS)


def test_decode_multiplies_every_weight_once(full: Estimate) -> None:
    """Each engine takes a word of `WORD_ROWS` weights per cycle: all weights of the layers and the head."""
    hidden, inner, kv, layers, vocabulary = 2048, 8192, 512, 16, 128256
    weights = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner) + hidden * vocabulary
    macs = [
        row
        for stage in full.stages
        if stage.phase == "decode"
        for row in stage.loops
        if row.loop == "n.outer/k"
    ]
    assert {row.ii for row in macs} == {1}
    cycles = sum(row.cycles for row in macs) / (TOKENS - 1)
    latency = cycles - weights / WORD_ROWS
    assert 0 < latency < 100 * (7 * layers + 1)  # a pipeline is filled and left once per layer and matrix
    assert full.phases["decode"].bytes > (TOKENS - 1) * weights / 2


def test_lines_of_kernels_and_schedules(full: Estimate) -> None:
    stage = next(s for s in full.stages if s.name.startswith("linear") and s.phase == "decode")
    row = next(r for r in stage.loops if r.loop == "n.outer/k")
    assert stage.kernel.file.endswith("kernels/linear.py")
    assert row.kernel.file.endswith("kernels/linear.py")
    assert row.schedule is not None
    assert "schedules" in row.schedule.file


def test_what_binds_is_named(full: Estimate) -> None:
    assert "of decode)" in full.binds
    assert "II=" in full.binds


def test_stages_lie_in_their_phase(full: Estimate) -> None:
    for stage in full.stages:
        assert 0 <= stage.start <= stage.end <= full.phases[stage.phase].cycles + 1
        assert stage.cycles <= full.phases[stage.phase].cycles


def test_a_design_is_estimated_by_a_few_positions() -> None:
    """Cycles are a line between positions, so a few stand for all."""

    def cycles(pos: int) -> float:
        return 100 + 3.5 * pos

    for prompt, tokens in ((10, 1), (10, 2), (10, 3), (1000, 77)):
        exact = sum(cycles(p) for p in range(prompt, prompt + tokens))
        assert sum(cycles(p) * w for p, w in decode_points(prompt, tokens)) == pytest.approx(exact)


def test_a_model_without_the_length_of_its_prompt() -> None:
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 128))
    with pytest.raises(EstimateError) as refused:
        top.schedule.estimate("u280")
    assert (refused.value.code, refused.value.hint) == (
        "FX902",
        'give it: s.estimate("u280", n_prompt=1024)',
    )


def test_stages_that_take_the_device_in_turn_need_less_of_it(full: Estimate) -> None:
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 2048))
    alone = top.schedule.estimate("u280", n_prompt=PROMPT, new_tokens=TOKENS, reconfigured=True)
    assert alone.cycles == full.cycles
    assert max(alone.utilization.values()) < max(full.utilization.values())
    assert {m.name for m in alone.modules} < {m.name for m in full.modules}


def test_a_single_token_is_made_by_prefill_on_the_same_design(full: Estimate) -> None:
    """Also where the decode is a bitstream of its own."""
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 2048))
    one = top.schedule.estimate("u280", n_prompt=PROMPT, new_tokens=1)
    assert one.resources == full.resources
    assert (one.decode_s, one.tokens_per_second) == (0, None)
    assert "of prefill)" in one.binds
    both = estimate_model(Path("llama-3.2-1b"), "u280", 7, 1, preset="u280-best")
    assert both.main == both.phases["prefill"]
    assert "of prefill)" in both.binds
    assert both.bandwidth_gbs > 0
    assert both.resources.dsp > 0


def test_longer_prompts_take_longer() -> None:
    short, long = (estimate_model(TINY, prompt=n, new_tokens=8, max_seq_len=64) for n in (8, 32))
    assert short.prefill_s is not None
    assert long.prefill_s is not None
    assert short.prefill_s < long.prefill_s
    assert short.decode_s is not None
    assert long.decode_s is not None
    assert short.decode_s < long.decode_s


def test_runs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError) as refused:
        estimate_model(TINY, prompt=60, new_tokens=8, max_seq_len=64)
    assert refused.value.message == "a prompt of 60 and 8 new tokens in a context of 64"
    with pytest.raises(UsageError) as refused:
        estimate_model(TINY, preset="defualt")
    assert refused.value.hint == 'did you mean "default"?'
    with pytest.raises(ModelError) as unknown:
        estimate_model(Path("lama-3.2-1b"))
    assert unknown.value.message == "there is neither a folder nor an architecture lama-3.2-1b"
    assert unknown.value.hint == 'did you mean "llama-3.2-1b" or "llama-3.2-3b"?'


@pytest.mark.parametrize("mhz", [0.0, -5.0, math.inf, math.nan])
def test_clocks_that_no_card_has_are_refused(mhz: float) -> None:
    for made in (estimate_model, tune, partial(build_project, out=Path("p"))):
        clock = {"frequency" if isinstance(made, partial) else "clock_mhz": mhz}
        with pytest.raises(UsageError) as refused:
            made(TINY, **clock)
        assert (refused.value.code, refused.value.message) == ("FX703", f"a clock of {mhz:g} MHz")
        assert refused.value.hint.startswith("more than 0 and at most 10000 MHz")
    with pytest.raises(EstimateError, match=f"FX902: a clock of {mhz} MHz and 2 new tokens: both are"):
        hardware_top(architecture("llama-3.2-1b", "w4a8kv8", 8)).schedule.estimate("u280", clock_mhz=mhz)


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    out, page = tmp_path / "estimate.json", tmp_path / "estimate.html"
    arguments = ["estimate", str(TINY), "--prompt", "16", "--new-tokens", "8"]
    arguments += ["--json", str(out), "--html", str(page)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "estimated" in result.output
    assert "binds: " in result.output
    assert "this is the default design, a small one; flexllm tune finds faster ones" in result.output
    data = json.loads(out.read_text())
    assert "When what runs" in page.read_text()
    wanted = {"prefill_s", "decode_s", "tokens_per_second", "cycles", "resources", "utilization"}
    wanted |= {"bandwidth_gbs", "power_w", "energy_per_token_j", "binds", "stages"}
    assert wanted <= data.keys()
    assert data["tokens_per_second"] == pytest.approx(7 / data["decode_s"])
    assert {"name", "cycles", "share", "kernel", "schedule", "loops"} <= data["stages"][0].keys()
    assert data["channels"][0]["name"].startswith(("HBM[", "DDR["))


@pytest.mark.parametrize("clock", [0.0, -1.0, float("inf"), float("nan")])
def test_clocks_that_are_none(clock: float) -> None:
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 128))
    with pytest.raises(EstimateError) as refused:
        top.schedule.estimate("u280", clock_mhz=clock, n_prompt=16)
    assert refused.value.message.startswith(f"a clock of {clock} MHz")


def test_the_power_of_a_card_that_nothing_is_known_of() -> None:
    found = estimate_model(TINY, "zcu104", 16, 4)
    assert (found.power_w, found.energy_per_token_j) == (None, None)
    assert found.tokens_per_second
