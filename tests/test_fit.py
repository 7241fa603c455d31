"""What an estimate says of a design that its card does not hold, and what it finds that would fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flexllm_allo as allo
from flexllm_allo import cli
from flexllm_allo.estimate.fit import Excess, Fit
from flexllm_allo.hardware.devices import Caps, device
from flexllm_allo.ir.types import float32, int32
from flexllm_allo.report.estimate import estimate_page
from flexllm_allo.report.terminal import estimate_text
from flexllm_allo.runtime.estimate import estimate_model, estimate_preset, open_model
from flexllm_allo.runtime.preset import PLAIN, Preset, StagePreset, get_preset
from flexllm_allo.runtime.search.candidates import shared_candidates
from flexllm_allo.runtime.search.nearest import estimate_advised, nearest_preset

TINY = Path(__file__).parents[1] / "models" / "tiny"
PRESETS = Path(__file__).parent / "presets"
RESIDENT = str(PRESETS / "resident.toml")
"""A design for the U280 with both stages on the card."""
ON_BRAM = str(PRESETS / "flexllm-bram.toml")
"""FlexLLM's design without UltraRAM."""


@pytest.fixture(scope="module")
def over():
    """A design for the U280 on a part with fewer resources, no URAM, and one memory channel."""
    return estimate_model(Path("llama-3.2-1b"), "zcu102", 128, 16, preset=RESIDENT)


def test_what_exceeds_by_how_much(over):
    assert not over.fit
    limits = {excess.what: excess for excess in over.fit.exceeded}
    assert set(limits) == {"LUT", "FF", "DSP", "BRAM18", "URAM"}
    card = device("zcu102")
    for (what, excess), used, there in zip(
        limits.items(), over.resources.counts(), card.available.counts(), strict=True
    ):
        assert (excess.used, excess.there_are) == (used, there), what
        assert excess.over == used - int(there * card.caps.share(what.lower()))
    assert str(limits["URAM"]) == f"URAM {over.resources.uram}, and there are none on this part"


def test_report_page_and_json_say_the_same(over):
    text, page, data = estimate_text(over), estimate_page(over), over.to_dict()
    assert "It does not fit the AMD Zynq UltraScale+ ZCU102:\n  LUT " in text
    assert "inf" not in text.partition("phase ")[0]
    assert "inf%" not in page
    for reason in over.fit.reasons:
        assert f"  {reason}.\n" in text
        assert reason in page
    assert data["fit"]["fits"] is False
    (dsp,) = (row for row in data["fit"]["exceeded"] if row["what"] == "DSP")
    assert dsp["over"] == dsp["used"] - dsp["limit"] > 0
    json.dumps(data, allow_nan=False)


def test_a_design_that_fits_says_nothing():
    found = estimate_model(Path("llama-3.2-1b"), "u280", 128, 16, preset="u280-best")
    assert found.fit
    assert found.fit == Fit(others=found.fit.others)
    assert found.to_dict()["fit"]["fits"] is True
    assert "does not fit" not in estimate_text(found)
    assert "does not fit" not in estimate_page(found)


def test_both_bitstreams_are_held_against_the_card():
    """Of a design whose stages take turns, prefill may be over where decode is not."""
    found = estimate_model(Path("llama-3.2-1b"), "u280", 128, 16, preset=ON_BRAM)
    (excess,) = found.fit.exceeded
    assert (excess.where, excess.what, excess.limit) == ("prefill", "BRAM18", 2841)
    assert str(excess).startswith("prefill: BRAM18 3,")
    assert max(found.utilization.values()) < 0.8  # decode alone fits


def test_ports_that_share_a_channel_wait_for_it():
    """32 ports of an engine on the one DDR channel of a KV260: no more than that channel gives."""
    found = estimate_model(Path("llama-3.2-1b"), "kv260", 128, 16, preset="flexllm-u280")
    gives = device("kv260").memory.gb_per_s * 0.85
    assert found.bandwidth_gbs == pytest.approx(gives, rel=1e-6)
    (channel,) = found.channels
    assert channel.gb_per_s == pytest.approx(gives, rel=1e-6)
    assert found.binds.startswith("bandwidth of DDR[0]: its ports together ask for 1")
    assert found.binds.endswith("times as long as the loops")
    assert [n.partition(":")[0] for n in found.notes if "bandwidth of DDR[0]" in n] == ["decode", "prefill"]
    fast = estimate_model(Path("llama-3.2-1b"), "u280", 128, 16, preset="flexllm-u280")
    bytes_of_a_token = fast.phases["decode"].bytes / fast.phases["decode"].tokens
    assert found.tokens_per_second == pytest.approx(gives * 1e9 / bytes_of_a_token, rel=1e-3)


def test_a_memory_that_is_too_small_is_said():
    found = estimate_model(Path("llama-3.2-3b"), "kv260", 64, 8, recipe="w4a4kv8", max_seq_len=131072)
    (why,) = found.fit.unplaced
    assert 'argument "' in why
    assert "does not fit into the memory of AMD Kria KV260" in why
    assert re.search(r"all arguments take (\d+) of 4294967296 bytes, \d+ too many", why)
    (longest,) = re.findall(r"\(it fits with max_seq_len (\d+)\)", why)
    assert found.channels == ()
    assert "the bandwidth of channels is not known, for the memory does not hold the design" in found.notes
    assert f"  {why}.\n" in estimate_text(found)
    shorter = estimate_model(Path("llama-3.2-3b"), "kv260", 64, 8, recipe="w4a4kv8", max_seq_len=int(longest))
    assert not shorter.fit.unplaced
    assert shorter.channels


def test_a_kernel_by_itself():
    def scale(A: float32[4096], B: float32[4096]) -> int32:
        for i in range(4096):
            B[i] = A[i] * A[i]
        return 0

    s = allo.customize(scale)
    s.pipeline("i")
    s.unroll("i", factor=1024)
    s.partition("A", dim=1, factor=1024)
    s.partition("B", dim=1, factor=1024)
    found = s.estimate("kv260", on_chip=True)
    assert found.fit.unplaced == ()
    (dsp,) = (excess for excess in found.fit.exceeded if excess.what == "DSP")
    assert dsp.used == found.resources.dsp >= 1024  # a product each, none of them shared


def test_a_limit_in_words():
    assert str(Excess("DSP", 11, 10, 0.8, "decode")) == "decode: DSP 11 of 8 (80% of 10), 3 over"
    assert str(Excess("HBM channels", 40, 32)) == "HBM channels 40 of 32, 8 over"
    assert Caps().uram == 0.8


def test_the_command_answers_with_exit_code_0(tmp_path: Path):
    out = tmp_path / "estimate.json"
    options = ["--preset", RESIDENT, "--device", "zcu102", "--prompt", "16", "--new-tokens", "4"]
    options += ["--no-nearest", "--json", str(out)]
    ran = CliRunner().invoke(cli.app, ["estimate", "llama-3.2-1b", *options])
    assert ran.exit_code == 0, ran.output
    assert "none on this part" in ran.output
    fit = json.loads(out.read_text())["fit"]
    assert (fit["fits"], fit["advice"], fit["nearest"]) == (False, "", None)
    assert "it fits u280, v80, u55c, " in ran.output


# ---------------------------------------------------------------------------------------- nearest


def changed(preset: Preset, stage: str, **parameters: int) -> Preset:
    return preset.model_copy(update={stage: getattr(preset, stage).model_copy(update=parameters)})


def test_the_nearest_setting_has_the_fewest_halvings():
    found = estimate_advised(Path("llama-3.2-1b"), "u280", 128, 16, preset=ON_BRAM)
    assert found.fit.nearest == {"prefill.token": 4}
    assert found.fit.advice.startswith("the nearest setting that fits: prefill.token = 4 (not 8): prefill 0.")
    halved = changed(get_preset(ON_BRAM), "prefill", token=4)
    model = open_model(Path("llama-3.2-1b"), halved.recipe, 128, 16)
    assert estimate_preset(halved, model, device("u280"), 128, 16, None, "").fit
    assert f"\n{found.fit.advice}\n" in estimate_text(found)
    assert found.fit.advice in estimate_page(found)


def test_more_channels_than_the_device_has():
    asked = changed(changed(get_preset(ON_BRAM), "prefill", token=4), "decode", ports=64)
    model = open_model(Path("llama-3.2-1b"), asked.recipe, 128, 16)
    found = estimate_preset(asked, model, device("u280"), 128, 16, None, "")
    (why,) = found.fit.unplaced
    assert re.match(
        r"decode: the design needs (\d+) memory ports, \d+ more than AMD Alveo U280 has \(34\), and no more",
        why,
    )
    near = nearest_preset(asked, model, device("u280"), 128, 16)
    assert near
    assert near.changes == {"decode.ports": (64, 32)}
    assert not near.estimate.fit.unplaced


def test_a_parameter_is_not_halved_below_what_others_need():
    """Terms of eight channels lie side by side, so an engine of two ports is none."""
    found = estimate_advised(Path("llama-3.2-1b"), "u55c", 112, 16, preset="u280-best")
    assert found.fit.nearest == {"decode.ports": 16}
    assert "34 memory ports, 2 more than AMD Alveo U55C has (32)" in found.fit.unplaced[0]
    assert found.fit.advice.startswith(
        "the nearest setting that fits: decode.ports = 16 (not 32): prefill 0.153"
    )


def test_a_design_without_a_place_is_searched_from_the_most_ports_that_have_one():
    """And then in everything else: the engine of the larger card takes too much of this one, too."""
    found = estimate_advised(Path("llama-3.2-1b"), "u280", 128, 16, preset="v80-best")
    assert found.fit.nearest == {"decode.ports": 32, "decode.block": 32, "decode.vector": 8}


def test_shared_engines_are_halved_once():
    """Of a design whose decode runs on the engines of prefill, these are halved, and counted once."""
    stages = {"prefill": StagePreset(schedule="temporal", token_parallel=4), "decode": PLAIN}
    asked = get_preset(RESIDENT).model_copy(update={"mode": "shared", **stages})
    model, card = open_model(TINY, "w4a8kv8", 16, 8), device("u280")
    lut = shared_candidates(asked, model, card, 300.0, 64, 64)[0].resources.lut
    share = 0.95 * lut / card.available.lut
    near = nearest_preset(asked, model, replace(card, caps=Caps(lut=share)), 16, 8)
    assert near
    assert near.preset.mode == "shared"
    assert near.changes == {"prefill.token_parallel": (4, 2)}
    assert near.estimate.resources.lut <= share * card.available.lut


def test_a_search_that_ends_says_so():
    found = estimate_advised(Path("llama-3.2-1b"), "kv260", 16, 4, preset=RESIDENT, estimates=2)
    assert found.fit.advice == "no setting that fits was found in 2 estimates of stages"
    assert found.fit.nearest == {}
