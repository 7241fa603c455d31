"""The page of an estimate: every figure is on it, every line links, nothing is fetched."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from flexllm_allo.errors import UNKNOWN, Span, register_source
from flexllm_allo.estimate.result import (
    ChannelTraffic,
    Estimate,
    LoopTiming,
    Module,
    Phase,
    StageTiming,
)
from flexllm_allo.hardware.devices import Resources
from flexllm_allo.report.charts import Bar, Point, bars, roofline_chart, timeline
from flexllm_allo.report.charts import Span as Row
from flexllm_allo.report.estimate import Compared, estimate_page
from flexllm_allo.report.terminal import bar, estimate_text

KERNEL, SCHEDULE = "<projects>/kernels/linear.py", "<projects>/schedules/decode.py"
register_source(
    KERNEL,
    "def linear(X: int8[K], W: int4[N, K]) -> int32[N]:\n"
    "    for n in range(N):\n"
    "        for k in range(K):\n"
    "            Y[n] += X[k] * W[n, k]  # a < b & c\n" + "\n".join(f"    line {n}" for n in range(5, 30)),
)
register_source(SCHEDULE, "def linear(s):\n    s.pipeline('k')\n")

WHY = "Y[n] is read 4 cycles after it is written"
LOOPS = (
    LoopTiming("n", 64, None, 300, 19_200, "not pipelined", Span(KERNEL, 2)),
    LoopTiming("k", 256, 4, 9, 19_000, WHY, Span(KERNEL, 3), Span(SCHEDULE, 2)),
)


def estimate(**changes) -> Estimate:
    base = Estimate(
        design="llama-3.2-1b <w4a4kv8>",
        device="u280",
        clock_mhz=300.0,
        phases={
            "prefill": Phase(150_000_000, 0.5, 2_000_000_000_000, 9_000_000_000, tokens=1024),
            "decode": Phase(900_000_000, 3.0, 2_500_000_000_000, 640_000_000_000, tokens=1000),
        },
        modules=(
            Module("linear", Resources(300_000, 400_000, 2_400, 900, 200), "SLR1", 5_000),
            Module("attention", Resources(150_000, 200_000, 1_200, 700, 100)),
        ),
        utilization={"lut": 0.396},
        channels=(ChannelTraffic("HBM[0]", 9.5, 9.6, 14.375), ChannelTraffic("HBM[1]", 4.0, 9.6, 14.375)),
        power_w=44.0,
        binds="HBM[0]: its port gives 9.6 GB/s at 300 MHz",
        stages=(
            StageTiming("prefill_linear", "prefill", 0, 140_000_000, 90_000_000, Span(KERNEL, 1)),
            StageTiming(
                "decode_linear", "decode", 0, 9 * 10**8, 6 * 10**8, Span(KERNEL, 1), Span(SCHEDULE, 1), LOOPS
            ),
            StageTiming("decode_attention", "decode", 10**8, 8 * 10**8, 3 * 10**8, UNKNOWN),
        ),
        notes=("weights are read once per block",),
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def page() -> str:
    return estimate_page(estimate())


def text_of(page: str) -> str:
    return " ".join("".join(ElementTree.fromstring(page.partition("\n")[2]).itertext()).split())


def test_it_is_one_well_formed_file_that_fetches_nothing(page):
    ElementTree.fromstring(page.partition("\n")[2])
    assert not re.search(r"<(script|link|img|iframe)\b|url\(|@import|https?://", page)


def test_every_figure_is_there(page):
    text = text_of(page)
    for figure in ("500 ms", "3.000 s", "333", "1,050,000,000", "213.3 GB/s", "44.0 W", "0.132 J"):
        assert figure in text
    assert "HBM[0]: its port gives 9.6 GB/s at 300 MHz" in text
    assert "weights are read once per block" in text
    assert "Every figure is estimated" in text
    for word in ("LUT", "DSP", "URAM", "linear", "attention", "SLR1", "HBM[1]"):
        assert word in text


def test_the_design_is_on_the_roofline(page):
    text = text_of(page)
    assert "decode: 0.833 TOPS at 3.91 operations a byte" in text  # 2.5e12 / 3 s, 2.5e12 / 640e9 bytes
    assert "4 x 4 bits: 19.9 TOPS, 460 GB/s, they meet at 43.3 a byte" in text
    assert "46.4%" in text  # 0.833e12 of 460e9 * 3.91


def test_a_loop_says_why_and_links_to_its_lines(page):
    tree = ElementTree.fromstring(page.partition("\n")[2])
    anchors = {node.get("id"): "".join(node.itertext()) for node in tree.iter("span") if node.get("id")}
    links = {"".join(a.itertext()): a.get("href", "") for a in tree.iter("a")}
    assert set(links) == {"kernels/linear.py:1", "kernels/linear.py:2", "kernels/linear.py:3"} | {
        "schedules/decode.py:1",
        "schedules/decode.py:2",
    }
    assert anchors[links["kernels/linear.py:3"].removeprefix("#")].strip() == "3          for k in range(K):"
    assert anchors[links["schedules/decode.py:2"].removeprefix("#")].strip() == "2      s.pipeline('k')"
    assert WHY in text_of(page)
    assert '<td class="bad">4</td>' in page


def test_listings_show_what_is_near_and_no_more(page):
    text = text_of(page)
    assert "# a < b & c" in text
    assert "line 5" in text
    assert "line 6" not in text


def test_no_path_of_this_machine_is_shown(page):
    assert "<projects>" not in text_of(page)


def test_a_design_that_fits_is_not_blamed(page):
    assert "does not fit" not in page
    big = estimate(modules=(Module("linear", Resources(900_000, 0, 0, 0, 0)),))
    text = text_of(estimate_page(big))
    assert "It does not fit the AMD Alveo U280" in text
    assert "LUT 900,000 of 794,976 (70% of 1,135,680), 105,024 over" in text


def test_a_single_kernel_on_a_board_of_unknown_resources():
    only = estimate(
        device="zcu104",
        phases={"gemm": Phase(3000, 1e-5, 10**6, 10**5)},
        stages=(),
        channels=(),
        modules=(),
    )
    text = text_of(estimate_page(only))
    assert "Estimate of llama-3.2-1b <w4a4kv8>" in text
    assert "tokens per second" not in text
    assert "Roofline" not in text


def test_gpus_have_ceiling_eager_and_vllm_apart():
    page = estimate_page(estimate(), Compared("Llama-2-7B", 13.2e9))
    rows = [[cell.text for cell in row] for row in ElementTree.fromstring(page.partition("\n")[2]).iter("tr")]
    (a100,) = [row for row in rows if row[0] == "NVIDIA A100 80 GB SXM"]
    assert a100[1:4] == ["154", "44.5 (FP16)", "88 (FP16)"]
    (h200,) = [row for row in rows if row[0] == "NVIDIA H200 SXM"]
    assert h200[1:4] == ["364", "-", "-"]


def test_long_timelines_keep_the_longest():
    many = tuple(StageTiming(f"stage{n}", "decode", n, n + 1000 + n, 1000 + n, UNKNOWN) for n in range(60))
    text = text_of(estimate_page(estimate(stages=many)))
    assert "(the 40 longest of 60)" in text
    assert "stage59" in text
    assert "stage19" not in text


def test_json_has_the_fields_of_the_command():
    data = json.loads(estimate(utilization={"lut": 0.4, "uram": float("inf")}).to_json())
    assert data["utilization"] == {"lut": 0.4, "uram": None}
    assert data["prefill_s"] == 0.5
    assert data["decode_s"] == 3.0
    assert data["tokens_per_second"] == pytest.approx(1000 / 3)
    assert data["energy_per_token_j"] == pytest.approx(0.132)
    assert data["resources"]["dsp"] == 3600
    assert data["bandwidth_gbs"] == pytest.approx(640 / 3)
    assert data["basis"] == "estimated"
    stage = data["stages"][1]
    assert stage["share"] == pytest.approx(2 / 3)
    assert stage["loops"][1]["schedule"] == f"{SCHEDULE}:2:1"
    assert {"cycles", "utilization", "power_w", "binds", "modules", "channels"} <= set(data)


# ----------------------------------------------------------------------------------- geometry


def boxes(chart: str, kind: str) -> list[tuple[float, float]]:
    found = re.findall(rf'<rect class="{kind}" x="([\d.]+)"[^>]*? width="([\d.]+)"', chart)
    return [(float(x), float(width)) for x, width in found]


def test_bars_of_a_timeline_are_as_long_as_their_times():
    chart = timeline("t", [Row("a", 0, 10, 5), Row("b", 5, 10, 5)], "ms")
    (a, b), (busy, _) = boxes(chart, "span"), boxes(chart, "bar")
    assert b[1] == pytest.approx(a[1] / 2, abs=0.2)
    assert b[0] == pytest.approx(a[0] + a[1] / 2, abs=0.2)
    assert busy[1] == pytest.approx(a[1] / 2, abs=0.2)


def test_parts_of_a_bar_lie_side_by_side_and_the_limit_in_its_place():
    chart = bars("t", [Bar("LUT", {"a": 30.0, "b": 50.0}, 70.0, 100.0)], "")
    (a, b), (whole,) = boxes(chart, "bar")[-2:], boxes(chart, "cell")
    assert a[1] == pytest.approx(0.3 * whole[1], abs=0.2)
    assert b[0] == pytest.approx(a[0] + a[1], abs=0.2)
    (limit,) = re.findall(r'class="limit" d="M([\d.]+)', chart)
    assert float(limit) == pytest.approx(whole[0] + 0.7 * whole[1], abs=0.2)
    assert 'class="bad"' in chart  # 80 of 70


def test_a_point_on_the_roof_is_drawn_on_it():
    chart = roofline_chart("t", {"r": (1e12, 1e11)}, [Point("p", 10.0, 1e12)])
    ridge = re.search(r"L([\d.]+) ([\d.]+)H", chart)
    dot = re.search(r'cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert ridge
    assert dot
    assert ridge.groups() == dot.groups()


# ------------------------------------------------------------------------------------ terminal


def test_the_terminal_says_the_same():
    lines = estimate_text(estimate()).splitlines()
    assert lines[0] == "llama-3.2-1b <w4a4kv8> on AMD Alveo U280 at 300 MHz, estimated"
    text = "\n".join(lines)
    assert re.search(r"decode +3 s +900,000,000 cycles +640 GB", text)
    assert re.search(r"333\.3 tokens/s +0\.132 J a token", text)
    assert "binds: HBM[0]: its port gives 9.6 GB/s at 300 MHz" in lines
    assert re.search(r"LUT +450,000 +#{10}\.{7}\|\.{6} +39\.6% \(cap 70%\)$", text, re.M)
    assert re.search(rf"decode +decode_linear +600,000,000 +66\.7% +k: II 4, {re.escape(WHY)}$", text, re.M)


def test_the_terminal_of_a_board_of_which_little_is_known():
    lines = estimate_text(estimate(device="zcu104", power_w=None, channels=())).splitlines()
    assert any(line.split() == ["333.3", "tokens/s"] for line in lines)
    assert any(line.endswith("GB/s, power not known") for line in lines)
    assert any(line.startswith("LUT 4") and line.endswith("the card has is not known") for line in lines)


def test_the_terminal_marks_what_is_over_its_cap():
    big = estimate(modules=(Module("linear", Resources(900_000, 0, 0, 0, 0)),))
    (over,) = [line for line in estimate_text(big).splitlines() if line.endswith("over")]
    assert over.startswith("LUT")
    assert bar(0.9, 0.5, 10) == "#####|###."
