"""Whether a design fits: caps, regions, channels, and what a refusal says."""

import pytest

from flexllm_allo.errors import EstimateError
from flexllm_allo.estimate.limits import Demand, check_fits, excesses, nearest, utilization
from flexllm_allo.estimate.result import Module
from flexllm_allo.hardware.devices import Caps, Resources, device

U280, KV260 = device("u280"), device("kv260")


def module(name="engine", lut=0, ff=0, dsp=0, bram18=0, uram=0, slr=None):
    return Module(name, Resources(lut, ff, dsp, bram18, uram), slr)


def refusal(*arguments, **keywords):
    with pytest.raises(EstimateError) as caught:
        check_fits(*arguments, **keywords)
    return caught.value


def test_utilization_is_of_what_the_shell_leaves():
    shares = utilization(Resources(567840, 0, 8304, 0, 96), U280.usable)
    assert shares == {"lut": 0.5, "ff": 0.0, "dsp": 1.0, "bram18": 0.0, "uram": 0.1}
    assert utilization(Resources(0, 0, 0, 0, 1), device("zcu102").available)["uram"] == float("inf")


@pytest.mark.parametrize(
    ("resource", "limit"),
    [("lut", 794976), ("ff", 1135680), ("dsp", 6643), ("bram18", 2841), ("uram", 768)],
)
def test_each_cap_holds_to_the_last_one(resource, limit):
    check_fits(Demand([module(**{resource: limit})]), U280)
    (excess,) = excesses(Demand([module(**{resource: limit + 1})]), U280)
    assert (excess.over, excess.limit) == (1, limit)


def test_modules_add_up():
    half = [module(str(n), dsp=3500) for n in range(2)]
    check_fits(Demand(half[:1]), U280)
    assert [e.what for e in excesses(Demand(half), U280)] == ["DSP"]


def test_caps_can_be_replaced():
    assert not excesses(Demand([module(dsp=8000)]), U280, Caps(dsp=1.0))


def test_a_refusal_says_what_by_how_much_and_what_else_would_hold_it():
    error = refusal(Demand([module(dsp=8000, uram=769)], {"HBM": 40}), U280)
    assert str(error) == (
        "EstimateError FX910: the design does not fit the AMD Alveo U280: "
        "DSP 8,000 of 6,643 (80% of 8,304), 1,357 over; URAM 769 of 768 (80% of 960), 1 over; "
        "HBM channels 40 of 32, 8 over\n"
        "  help: it fits v80"
    )


def test_a_region_may_be_full_though_the_device_is_not():
    placed = [module("loaders", lut=401_000, slr="SLR0"), module("engine", lut=300_000, slr="SLR1")]
    (excess,) = excesses(Demand(placed), U280)
    assert str(excess) == "SLR0 LUT 401,000 of 400,800 (100% of 400,800), 200 over"


def test_a_region_that_the_device_lacks():
    (excess,) = excesses(Demand([module(dsp=10, slr="SLR3")]), U280)
    assert (excess.what, excess.there_are) == ("SLR3 DSP", 0)


def test_a_part_without_hbm():
    error = refusal(Demand([module(dsp=10)], {"HBM": 4}), KV260)
    assert error.message == "the design does not fit the AMD Kria KV260: HBM channels 4 of 0, 4 over"
    assert error.hint == "its memory is 1 DDR channel; it fits u280, v80, u55c, vhk158"


def test_nothing_holds_it():
    assert refusal(Demand([module(dsp=10**6)]), U280).hint == "it fits no card of the database"


def test_a_board_of_unknown_resources():
    error = refusal(Demand([module(dsp=1)]), device("zcu104"))
    assert error.code == "FX911"
    assert error.hint == "known: u280, v80, u55c, u250, vhk158, vck190, kv260, zcu102"


CHOICES = {"tokens": [1, 2, 4, 8, 16], "weights": [16, 32, 64, 128]}


def demand(setting):
    return Demand([module(dsp=4 * setting["tokens"] * setting["weights"])], {"HBM": setting["weights"] // 4})


def test_the_nearest_setting_is_named():
    asked = {"tokens": 16, "weights": 128}  # 8,192 DSPs: half of them fit, and the last parameter gives way
    error = refusal(demand(asked), U280, setting=asked, choices=CHOICES, evaluate=demand)
    assert error.hint == "the nearest setting that fits: weights = 64 (not 128)"
    error = refusal(
        demand(asked),
        U280,
        setting=asked,
        choices=CHOICES,
        evaluate=lambda s: Demand(demand(s).modules, {"HBM": s["tokens"] * 3}),
    )
    assert error.hint == "the nearest setting that fits: tokens = 8 (not 16)"


@pytest.mark.parametrize("limit", [16, 100, 500, 2047, 2048])
def test_no_setting_that_fits_is_nearer(limit):
    def fits(s):
        return s["tokens"] * s["weights"] <= limit

    def distance(s):
        return sum(abs(CHOICES[n].index(s[n]) - CHOICES[n].index(asked[n])) for n in CHOICES)

    asked = {"tokens": 16, "weights": 128}
    found = nearest(asked, CHOICES, fits)
    every = [{"tokens": t, "weights": w} for t in CHOICES["tokens"] for w in CHOICES["weights"]]
    assert found
    assert fits(found)
    assert distance(found) == min(distance(s) for s in every if fits(s))


def test_no_setting_fits():
    asked = {"tokens": 1, "weights": 16}
    error = refusal(
        Demand([module(dsp=9000)]),
        U280,
        setting=asked,
        choices=CHOICES,
        evaluate=lambda s: Demand([module(dsp=9000)]),
    )
    assert error.hint == "no setting near this one fits"
    assert nearest(asked, CHOICES, lambda s: False, tries=3) is None


def test_other_parameters_stay_as_they_are():
    found = nearest({"tokens": 4, "weights": 64, "heads": 8}, CHOICES, lambda s: s["tokens"] < 4)
    assert found == {"tokens": 2, "weights": 64, "heads": 8}
