"""Recipe files: the round trip of every recipe, and what a wrong file is told."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexllm_allo.errors import QuantError
from flexllm_allo.quant.formats import NM, FloatFormat, IntFormat, ProgressiveFormat
from flexllm_allo.quant.passes import (
    Awq,
    FoldNorms,
    Gptq,
    LowRank,
    Outliers,
    Prune,
    Rotate,
    Rtn,
    Smooth,
    StaticScales,
)
from flexllm_allo.quant.recipe_file import (
    parse_recipe,
    read_recipe,
    recipe_from_dict,
    recipe_to_dict,
    recipe_to_toml,
)
from flexllm_allo.quant.recipes import SITES, Recipe, get_recipe, recipes

SMALL = """\
name = "mine"
description = "int4 \\"groups\\""
passes = [{ pass = "smooth", alpha = 1 }, { pass = "gptq", act_order = true }]

[weight]
format = "int"
bits = 4
granularity = "per_group"
group = 32
zero = "integer"
scale = "float16"
sparsity = { n = 2, m = 4, index = "3bit" }

[kv]
bits = 8
granularity = "per_head"

[kinds.w_down]
format = "progressive"

[layer_bits]
3 = 2
"""


@pytest.mark.parametrize("name", recipes)
def test_round_trip(name):
    text = recipe_to_toml(recipes[name])
    assert parse_recipe(text) == recipes[name]
    assert recipe_from_dict(recipe_to_dict(recipes[name])) == recipes[name]
    assert recipe_to_toml(parse_recipe(text)) == text
    assert tomllib.loads(text) == {k: v for k, v in recipe_to_dict(recipes[name]).items() if v != {}}


def test_a_file_by_hand():
    group = IntFormat(4, "per_group", zero="integer", group=32, scale="float16", sparsity=NM(2, 4, "3bit"))
    assert parse_recipe(SMALL) == Recipe(
        "mine",
        group,
        None,
        IntFormat(8, "per_head"),
        None,
        'int4 "groups"',
        (Smooth(1.0), Gptq(act_order=True)),
        {"w_down": ProgressiveFormat()},
        {3: 2},
    )
    assert parse_recipe('name = "plain"') == Recipe("plain", None, None, None, None)


WEIGHTS = st.one_of(
    st.builds(IntFormat, st.integers(2, 8), st.just("per_channel"), st.booleans()),
    st.builds(
        IntFormat,
        st.integers(2, 8),
        st.just("per_group"),
        zero=st.sampled_from(["none", "integer"]),
        group=st.sampled_from([16, 64]),
        scale=st.sampled_from(["float32", "float16"]),
        sparsity=st.sampled_from([None, NM(), NM(1, 4), NM(2, 4, "3bit")]),
    ),
    st.builds(ProgressiveFormat, group=st.sampled_from([32, 128]), limit=st.integers(1, 127)),
)
PASSES = st.tuples(
    st.sampled_from([None, Smooth(0.25), Awq(7)]),
    st.just(FoldNorms()),
    st.sampled_from([None, Rotate(), Rotate("learned", "none", True, False, True, 7, 9)]),
    st.sampled_from([None, Outliers(3)]),
    st.sampled_from([None, Prune("magnitude")]),
    st.sampled_from([Rtn(), Gptq(64, 1e-5, True)]),
    st.sampled_from([None, LowRank(2)]),
    st.sampled_from([None, StaticScales()]),
).map(lambda steps: tuple(filter(None, steps)))


@given(
    st.builds(
        Recipe,
        st.text(min_size=1),
        WEIGHTS,
        st.sampled_from([None, FloatFormat(16), IntFormat(4, "per_token", dynamic=True, zero="float")]),
        st.sampled_from([None, IntFormat(4, "per_token_and_head", dynamic=True)]),
        st.one_of(st.none(), WEIGHTS),
        st.text(),
        PASSES,
        st.dictionaries(st.sampled_from([k for ks in SITES.values() for k in ks if k != "w_head"]), WEIGHTS),
        st.dictionaries(st.integers(0, 99), st.just(2)),
    )
)
@settings(max_examples=40, deadline=None)
def test_round_trip_of_any_recipe(recipe):
    assert parse_recipe(recipe_to_toml(recipe)) == recipe


def refusal(text: str) -> str:
    with pytest.raises(QuantError) as caught:
        parse_recipe(text, "my.toml")
    assert caught.value.code == "FX604"
    return caught.value.message


WEIGHT = '[weight]\nformat = "int"\nbits = 4\ngranularity = "per_channel"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wieght = 1", 'wieght is unknown: did you mean "weight"?'),
        (WEIGHT + "gruop = 3", 'weight.gruop is unknown: did you mean "group"?'),
        (WEIGHT + "[weight.sparsity]\nk = 2", "weight.sparsity.k is unknown: known names: index, m, n"),
        (WEIGHT.replace("4", '"4"'), "weight.bits is '4': input should be a valid integer"),
        (WEIGHT.replace("4", "4.0"), "weight.bits is 4.0: input should be a valid integer"),
        (WEIGHT.replace("4", "true"), "weight.bits is True: input should be a valid integer"),
        (WEIGHT.replace("bits = 4\n", ""), "weight.bits is missing"),
        (WEIGHT.replace("channel", "row"), "weight.granularity is 'per_row': input should be 'per_tensor', "),
        (WEIGHT.replace("channel", "token"), 'weight.granularity is "per_token": it can be per_tensor or '),
        (WEIGHT.replace("4", "9"), "weight.bits is 9: 2 to 8 are supported"),
        (WEIGHT.replace("4", "1"), "weight.bits is 1: 2 to 8 are supported"),
        (WEIGHT + "group = 32", "weight.group is 32: weights that share a scale, for per_group and nothing"),
        (WEIGHT.replace("channel", "group"), "weight.group is 0: weights that share a scale"),
        (WEIGHT + 'zero = "float"', 'weight.zero is "float": weights have "none" or "integer"'),
        ("[weight]\nbits = 3", "weight does not say which format it is: int, progressive"),
        ('[weight]\nformat = "itn"', "weight.format is 'itn': did you mean \"int\"?"),
        ('[weight]\nformat = "float"', "weight.format is 'float': known names: int, progressive"),
        ('[weight]\nformat = "progressive"\ngroup = 0', "weight.group is 0: a group has at least one"),
        ("[kv]\nbits = 16\ngranularity = 'per_head'", "kv.bits is 16: 2 to 8 are supported"),
        ("weight = 4", "weight is 4: "),
        ('passes = [{ pass = "gptq", blok = 1 }]', 'passes[0].blok is unknown: did you mean "block"?'),
        ('passes = [{ pass = "rtn" }, { pass = "awk" }]', "passes[1].pass is 'awk': did you mean \"awq\"?"),
        ("passes = [{ block = 3 }]", "passes[0] does not say which pass it is: smooth, awq, "),
        ("[layer_bits]\nx = 3", "layer_bits.x is 'x': input should be a valid integer"),
        (WEIGHT + "[layer_bits]\n0 = 5", "layer_bits.0 is 5: layers count from 0 and have 2 to 4 bits"),
        (
            WEIGHT + "[layer_bits]\n0 = 3\n" + WEIGHT.replace("weight", "kinds.wo").replace("4", "2"),
            "layer_bits.0 is 3: layers count from 0 and have 2 to 2 bits, no more than any of their weights",
        ),
        (WEIGHT.replace("weight", "kinds.wqq"), 'kinds.wqq is unknown: did you mean "wq"'),
    ],
)
def test_refusals_name_the_field(text, says):
    assert f"my.toml does not describe a recipe:\n  - {says}" in refusal('name = "x"\n' + text)


def test_all_problems_are_listed():
    text = WEIGHT.replace("4", "'4'") + "[vk]\n[kinds.wo]\nformat = 'int'\n"
    listed = [line.split(" is ")[0] for line in refusal(text).splitlines()[1:]]
    assert sorted(listed) == sorted(
        ["  - name", "  - weight.bits", "  - vk", "  - kinds.wo.bits", "  - kinds.wo.granularity"]
    )


def test_refusals_beyond_fields():
    assert refusal("name = ") == "my.toml is not TOML: invalid value (at end of document)"
    wrong = 'name = "x"\npasses = [{ pass = "rtn" }, { pass = "smooth" }]'
    assert refusal(wrong) == "recipe 'x': Smooth must come before Rtn"


def test_files_by_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(recipe_to_toml(replace(recipes["w4a8kv8"], name="other")))
    assert get_recipe(str(path)).name == "other"
    path.write_text(WEIGHT)
    assert read_recipe(path).name == "mine"
    path.write_bytes(b"\xff")
    for bad, says in ((path, "it is not UTF-8"), (tmp_path / "no.toml", "No such file or directory")):
        with pytest.raises(QuantError) as caught:
            get_recipe(str(bad))
        assert caught.value.code == "FX604"
        assert caught.value.message == f"cannot read the recipe {bad}: {says}"
