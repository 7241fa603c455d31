"""The power model: the formula, its one fit, and the published readings it reproduces or does not."""

import re

import pytest

from flexllm_allo.errors import EstimateError
from flexllm_allo.estimate.power import TOLERANCE, anchors, fitted_static_w, power, power_families
from flexllm_allo.hardware.devices import Resources, device, devices

NOTHING = Resources(lut=0, ff=0, dsp=0, bram18=0, uram=0)
BOARD = [a for a in anchors() if a.basis == "board"]
KNOWN = [a for a in BOARD if a.resources]
BRACKETED = [a for a in BOARD if not a.resources]

MISSES = {"TeLLMe, version 1"}
"""Readings above what the model gives with the whole fabric in use."""


def test_every_term_of_the_formula():
    card = device("u280")
    static = power(card, NOTHING, 300, 0).total_w
    dsp = power(card, Resources(0, 0, 1000, 0, 0), 200, 0)
    assert dsp.fabric_w == pytest.approx(1000 * 5e-12 * 200e6)
    assert dsp.total_w == pytest.approx(static + 1.0)
    assert power(card, Resources(100_000, 0, 0, 0, 0), 300, 0).fabric_w == pytest.approx(1.2)
    assert power(card, Resources(0, 0, 0, 1000, 100), 300, 0).fabric_w == pytest.approx(1200 * 3e-12 * 300e6)
    assert power(card, NOTHING, 300, 460).memory_w == pytest.approx(460 * 0.04)


@pytest.mark.parametrize("anchor", KNOWN, ids=lambda a: a.name)
def test_board_readings_with_known_activity_are_reproduced(anchor):
    assert anchor.resources
    estimated = power(anchor.card, anchor.resources, anchor.mhz, anchor.gb_per_s).total_w
    assert estimated == pytest.approx(anchor.watts, rel=TOLERANCE)


@pytest.mark.parametrize("anchor", BRACKETED, ids=lambda a: a.name)
def test_other_board_readings_lie_between_no_fabric_and_all_of_it(anchor):
    card = anchor.card
    assert card.available
    floor = power(card, NOTHING, anchor.mhz, anchor.gb_per_s).total_w
    ceiling = power(card, card.available, anchor.mhz, anchor.gb_per_s).total_w
    assert (floor < anchor.watts < ceiling) == (anchor.name not in MISSES)


@pytest.mark.parametrize("family", power_families())
def test_static_power_is_the_fit_and_not_a_design_s(family):
    fitted = fitted_static_w(family)
    card = next(card for card in devices() if card.power_family == family)
    if fitted is None:
        assert "no anchor" in power_families()[family]
    else:
        assert power(card, NOTHING, 0, 0).static_w == pytest.approx(fitted, abs=0.05)  # as it is rounded


def test_simulated_readings_fit_nothing():
    assert {a.name for a in anchors() if a.basis != "board"} == {"AccLLM", "TerEffic, HBM"}
    assert all(a.basis == "board" and a.resources for a in anchors() if a.fit)
    assert all(re.match(r"published|secondary", a.source) for a in anchors())


def test_a_board_without_constants_says_so():
    with pytest.raises(EstimateError) as caught:
        power(device("zcu104"), NOTHING, 300, 1)
    assert "EstimateError FX911: nothing is known of the power of the AMD Zynq UltraScale+ ZCU104" in str(
        caught.value
    )
    assert "`power_family`" in caught.value.hint
