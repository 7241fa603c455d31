"""Devices and GPUs as data: figures of the reference, a source for each, the clock rule, packing."""

import re

import device_page
import pytest

from flexllm_allo.errors import FlexError
from flexllm_allo.hardware.devices import RESOURCES, achievable_mhz, device, devices
from flexllm_allo.hardware.gpus import gpu, gpus
from flexllm_allo.hardware.packing import dsp_family

ESTIMATED = ("u280", "u250", "u55c", "v80", "vhk158", "vck190", "kv260", "zcu102")
TAG = re.compile(r"(published|code|derived|secondary|recalled)\b")


@pytest.mark.parametrize("key", ESTIMATED)
def test_every_figure_of_a_card_has_a_source(key):
    card = device(key)
    stated = {"resources", "usable", "regions", "memory"}
    stated |= {"second"} if card.second else set()
    stated |= {"max_w"} if card.max_w else set()
    assert set(card.sources) == stated
    assert all(TAG.match(source) for source in card.sources.values())


@pytest.mark.parametrize("key", ESTIMATED)
def test_a_card_is_complete_and_consistent(key):
    card = device(key)
    die, usable = card.resources, card.available
    assert die
    assert usable
    assert all(a <= b for a, b in zip(usable.counts(), die.counts(), strict=True))
    assert card.power_family
    for memory in card.memories:
        assert memory.channel_gb_per_s
        assert memory.port_bits in (128, 256, 512)
    assert len(card.region_resources) == card.slrs
    for name, regions in zip(
        RESOURCES, zip(*(r.counts() for r in card.region_resources.values()), strict=True), strict=True
    ):
        assert sum(regions) <= getattr(die, name)
        assert sum(regions) == pytest.approx(getattr(usable, name), rel=0.03)  # projects count shells apart


@pytest.mark.parametrize(
    ("key", "gb_per_s"),
    [("u280", 460), ("u55c", 460), ("u250", 76.8), ("v80", 819.2), ("vhk158", 819.2), ("vck190", 25.6)],
)
def test_bandwidth_of_all_channels(key, gb_per_s):
    assert device(key).memory.gb_per_s == pytest.approx(gb_per_s)


@pytest.mark.parametrize(
    ("key", "moved", "design"),
    [("u280", 196, "FlightLLM"), ("u280", 279, "EdgeLLM"), ("kv260", 17, "llama-fpga")],
)
def test_no_published_design_moved_more_than_the_memory_gives_at_its_efficiency(key, moved, design):
    memory = device(key).memory
    assert memory.gb_per_s
    assert moved <= 1.05 * memory.efficiency * memory.gb_per_s, design


def test_boards_of_unknown_resources_say_so():
    unknown = [card for card in devices() if card.key not in ESTIMATED]
    assert {card.key for card in unknown} >= {"u200", "zcu104", "pynqz2"}
    assert all(card.available is None and card.region_resources == {} for card in unknown)


def test_caps_are_those_of_finn():
    caps = device("u280").caps
    assert [caps.share(name) for name in RESOURCES] == [0.70, 0.50, 0.80, 0.80, 0.80]


@pytest.mark.parametrize(
    ("utilization", "floorplanned", "mhz"),
    [
        (0.2, True, 300),
        (0.5, True, 250),
        (0.69, True, 250),
        (0.7, True, 225),
        (1.2, True, 225),
        (0.2, False, 250),
        (0.6, False, 250),
        (0.8, False, 225),
    ],
)
def test_the_clock_to_expect(utilization, floorplanned, mhz):
    assert achievable_mhz(device("u280"), utilization, floorplanned) == mhz


def test_a_slow_board_stays_slow():
    assert achievable_mhz(device("zedboard"), 0.1) == 100


def test_gpu_rows_are_kept_apart_and_have_sources():
    assert [g.key for g in gpus()] == ["a100", "a100-pcie", "h100", "h200"]
    assert all(TAG.match(g.source) for g in gpus())
    rows = [row for g in gpus() for row in g.rows]
    assert {row.kind for row in rows} == {"eager", "vllm"}
    assert all(TAG.match(row.source) for row in rows)
    llama7 = {row.kind: row.tokens_per_second for row in gpu("a100").rows if row.model == "Llama-2-7B"}
    assert llama7["vllm"] > 1.5 * llama7["eager"]


def test_no_reported_rate_is_above_its_roofline():
    bytes_per_token = {"Llama-3.2-1B": 2.47e9, "Llama-2-7B": 13.2e9}
    for g in gpus():
        for row in g.rows:
            assert row.tokens_per_second < g.roofline_tokens_per_second(bytes_per_token[row.model])


def test_an_unknown_gpu_or_family():
    with pytest.raises(FlexError, match=r'TargetError FX402: there is no GPU h20\n.*did you mean "h200"'):
        gpu("h20")
    with pytest.raises(FlexError, match="TargetError FX402: there is no DSP family DSP59"):
        dsp_family("DSP59")


@pytest.mark.parametrize(
    ("family", "bits", "macs"),
    [
        ("DSP48E2", (8, 8), 2),
        ("DSP48E2", (4, 4), 4),
        ("DSP48E2", (4, 8), 2),
        ("DSP48E2", (2, 8), 3),
        ("DSP48E2", (2, 4), 4),
        ("DSP48E2", (16, 8), 1),
        ("DSP58", (8, 8), 3),
        ("DSP58", (4, 4), 4),
    ],
)
def test_macs_per_dsp(family, bits, macs):
    found = dsp_family(family).packing(*bits)
    assert found
    assert found.per_dsp == macs
    assert TAG.match(found.source)


def test_operands_too_wide_for_a_dsp():
    assert dsp_family("DSP58").packing(32, 8) is None


LANES = [("DSP48E2", 8, 8, 18, True), ("DSP48E2", 4, 4, 11, False)]


@pytest.mark.parametrize(("family", "weight", "activation", "lane", "signed"), LANES)
def test_a_lane_holds_its_accumulations_and_not_one_more(family, weight, activation, lane, signed):
    """The low lane of the packed word: exact for as many products of the largest magnitude as stated."""
    packing = dsp_family(family).packing(weight, activation)
    assert packing
    assert packing.accumulations
    w = -(2 ** (weight - 1))
    a = -(2 ** (activation - 1)) if signed else 2**activation - 1

    def exact(count: int) -> bool:
        word = sum(((5 << lane) + w) * a for _ in range(count))
        low = (word + 2 ** (lane - 1)) % 2**lane - 2 ** (lane - 1)
        return low == count * w * a

    assert exact(packing.accumulations)
    assert not exact(packing.accumulations + 1)


def test_page_is_made_from_the_data():
    assert device_page.PAGE.read_text() == device_page.page(), "run: python tests/device_page.py"
