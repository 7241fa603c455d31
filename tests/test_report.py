"""The signal-to-noise report: what it measures, what it advises, the page, the command."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from quant_models import TINY, UINT4, RandomModel, logits, random_samples, rebuilt
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.models import load_checkpoint
from flexllm_allo.models.calibrate import Calibration, calibration_tokens
from flexllm_allo.quant import plant_outliers
from flexllm_allo.quant.activation import fake_quantize
from flexllm_allo.quant.advice import repaired, sticks_out, suggestions
from flexllm_allo.quant.decoder import decode_layer, decoder_of, float_layer
from flexllm_allo.quant.formats import (
    INT4_WEIGHT,
    INT8_KV,
    INT8_WEIGHT,
    FloatFormat,
    IntFormat,
    ProgressiveFormat,
)
from flexllm_allo.quant.layers import round_tensors
from flexllm_allo.quant.passes import FoldNorms, Gptq, LowRank, Outliers, Rotate, Rtn, Smooth, StaticScales
from flexllm_allo.quant.pipeline import checked_samples, quantize_tensors
from flexllm_allo.quant.recipe_file import parse_recipe, recipe_from_dict, recipe_to_dict
from flexllm_allo.quant.recipes import Recipe, recipes
from flexllm_allo.quant.snr import (
    HEAD_PLACES,
    LOCAL_DB,
    PLACES,
    STREAM_DB,
    Measurement,
    OutputError,
    SnrReport,
    measure_snr,
)
from flexllm_allo.quant.transform.float_passes import apply_float_passes
from flexllm_allo.report import html, svg
from flexllm_allo.report.snr import snr_dict, snr_page

W4A4 = Recipe("w4a4", INT4_WEIGHT, UINT4, INT8_KV, INT8_WEIGHT, "", (Rtn(),))
TOML = """\
passes = [{ pass = "rtn" }]
weight = { format = "int", bits = 4, granularity = "per_channel", full_range = true }
activation = { format = "int", bits = 4, granularity = "per_token", dynamic = true, zero = "integer" }
head = { format = "int", bits = 8, granularity = "per_channel" }
"""


def measured(model, recipe, samples, calibration=None) -> SnrReport:
    data = checked_samples(model, recipe, calibration)
    view = apply_float_passes(model, recipe, data)
    return measure_snr(view, recipe, round_tensors(view, recipe, data), samples)


def db(signal, error):
    return 10 * math.log10((signal.astype(np.float64) ** 2).sum() / (error.astype(np.float64) ** 2).sum())


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def planted(tiny):
    return plant_outliers(tiny, fraction=0.02, factor=20.0, inner=10.0)


@pytest.fixture(scope="module")
def samples(tiny):
    return calibration_tokens(tiny, Calibration(TINY / "heldout.txt", samples=2, length=64))


@pytest.fixture(scope="module")
def noisy(planted, samples) -> SnrReport:
    return measured(planted, W4A4, samples)


# ------------------------------------------------------------------------------------------ measuring


def test_figures_by_hand():
    model = RandomModel()
    ids = random_samples(model, 3, 12)
    recipe = Recipe("hand", INT4_WEIGHT, UINT4, INT8_KV, INT8_WEIGHT, "", (Rtn(),))
    report = measured(model, recipe, ids)
    found = dict(quantize_tensors(model, recipe))
    none = dict(quantize_tensors(model, recipes["none"]))
    decoder = decoder_of(model, 12)
    inputs, down = [], []

    def tap(name, value):
        if name == "attn":
            inputs.append(value)
        if name == "down":
            down.append(value)

    x = none["embed"][ids]
    after = decode_layer(decoder, float_layer(model, 0), x, tap)
    h, z = np.concatenate(inputs), np.concatenate(down)
    w = {kind: none[f"layers.0.{kind}"].dequantize() for kind in ("wq", "wk", "wv", "w_down")}
    stacked = np.concatenate([w["wq"], w["wk"], w["wv"]])
    attn, wk, wdown = (report.at(0, place) for place in ("attn", "wk", "w_down"))
    assert attn.snr == pytest.approx(db(h @ stacked.T, (fake_quantize(h, UINT4) - h) @ stacked.T), abs=1e-3)
    assert attn.values == pytest.approx(db(h, fake_quantize(h, UINT4) - h), abs=1e-3)
    assert attn.peak == pytest.approx(np.mean(np.abs(h).max(1) / np.sqrt((h**2).mean(1))), rel=1e-4)
    for measurement, kind, value in ((wk, "wk", h), (wdown, "w_down", z)):
        error = found[f"layers.0.{kind}"].dequantize() - w[kind]
        assert measurement.values == pytest.approx(db(w[kind], error), abs=1e-3)
        assert measurement.snr == pytest.approx(db(value @ w[kind].T, value @ error.T), abs=1e-3)
    rounded = decode_layer(decoder, rebuilt(found, 0, recipe), x)
    assert report.at(0, "stream").snr == pytest.approx(db(after, rounded - after), abs=1e-3)


def test_output_error_by_hand():
    model = RandomModel(3)
    ids = random_samples(model, 2, 10)
    report = measured(model, W4A4, ids)
    float_logits, rounded = (
        np.stack([logits(model, dict(quantize_tensors(model, r)), r, row) for row in ids]).astype(float)
        for r in (recipes["none"], W4A4)
    )
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (float_logits[:, :-1], rounded[:, :-1]))
    out = report.output
    assert out.tokens == 2 * 9
    assert out.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-3)
    for found, probability in ((out.cross_entropy_float, p), (out.cross_entropy, q)):
        chosen = np.take_along_axis(probability, ids[:, 1:, None], -1)
        assert found == pytest.approx(-np.log(chosen).mean(), rel=1e-4)
    assert out.snr == pytest.approx(db(float_logits, rounded - float_logits), abs=1e-2)


@pytest.mark.parametrize("static", [False, True])
def test_attention_is_measured_as_it_is_rounded(static):
    model = RandomModel(1)
    ids = random_samples(model, 2, 12)
    kv = IntFormat(8, "per_head", full_range=True) if static else IntFormat(
        4, "per_token_and_head", dynamic=True, zero="integer"
    )  # fmt: skip
    passes = (Rtn(), StaticScales()) if static else (Rtn(),)
    recipe = Recipe("kv", INT8_WEIGHT, None, kv, None, "", passes)
    report = measured(model, recipe, ids, ids)
    at = {name: report.at(0, name).snr for name in ("q", "k", "v", "p", "attention")}
    assert all(30 < at[name] < 60 for name in (("q", "k", "v", "p") if static else ("q", "p")))
    if not static:
        assert all(15 < at[name] < 30 for name in ("k", "v"))
    assert at["attention"] < max(at.values())
    unrounded = measured(model, replace(recipe, kv=None, passes=(Rtn(),)), ids)
    assert all(unrounded.at(0, name).snr == math.inf for name in at)


def test_float_passes_alone_are_exact():
    model = RandomModel()
    recipe = Recipe("turned", None, None, None, None, "", (FoldNorms(), Rotate(r3=True, out=True)))
    report = measured(model, recipe, random_samples(model))
    assert all(m.snr == math.inf and not m.bad for m in report.measurements)
    assert report.output.kl == 0
    plain = measured(model, recipes["none"], random_samples(model))
    assert report.output.cross_entropy == pytest.approx(plain.output.cross_entropy, rel=1e-5)


def test_corrections_count():
    model = RandomModel(intermediate_size=32)  # every site has 32 channels
    ids = random_samples(model)
    all_float = measured(model, replace(W4A4, passes=(Outliers(32), Rtn())), ids, ids)
    assert all(all_float.at(1, site).snr == math.inf for site in ("attn", "out", "mlp", "down"))
    full_rank = measured(model, replace(W4A4, passes=(Rtn(), LowRank(32))), ids)
    for report in (all_float, full_rank):
        for kind in ("wq", "wo", "w_up", "w_down"):
            assert report.at(0, kind).values > 90
            assert report.at(0, kind).snr > 90


def test_places_come_in_the_order_of_computation(noisy):
    order = [(layer, place) for layer in range(4) for place in PLACES] + [(None, p) for p in HEAD_PLACES]
    assert [(m.layer, m.place) for m in noisy.measurements] == order


# --------------------------------------------------------------------------------- verdicts and advice


def test_outliers_at_four_bits(noisy, planted, samples):
    first = noisy.first_bad()
    assert (first.layer, first.place) == (0, "attn")
    assert first.snr < 10 < LOCAL_DB < noisy.at(0, "out").snr
    advice = suggestions(noisy, planted.config)
    assert [s.cause for s in advice] == ["hidden", "down"]
    assert advice[0].recipe.find(Rotate).r1 == "hadamard"
    assert advice[1].recipe.find(Rotate).r4
    better = repaired(noisy, planted.config)
    assert better.find(Rotate) == Rotate("hadamard", "none", r4=True)
    report = measured(planted, better, samples)
    assert report.first_bad() is None
    assert report.output.kl < noisy.output.kl / 10


def test_four_bits_without_planted_outliers(tiny, samples):
    """The products inside the MLP have channels that stick out all the same."""
    report = measured(tiny, W4A4, samples)
    assert {m.place for m in report.bad()} == {"down"}
    (only,) = suggestions(report, tiny.config)
    assert only.recipe.find(Rotate) == Rotate("none", "none", r4=True)
    assert measured(tiny, only.recipe, samples).first_bad() is None


def test_eight_bits_are_enough(tiny, planted, samples):
    for model in (tiny, planted):
        report = measured(model, recipes["w8a8kv8"], samples)
        assert report.first_bad() is None
        assert suggestions(report, model.config) == ()
        assert repaired(report, model.config) == recipes["w8a8kv8"]


def made(recipe: Recipe, *bad: tuple[int | None, str, float], snr: float = 5.0, layers: int = 2) -> SnrReport:
    """A report where all is well but the places given, with their peaks."""
    peaks = {(layer, place): peak for layer, place, peak in bad}
    order = [(n, place) for n in range(layers) for place in PLACES] + [(None, p) for p in HEAD_PLACES]
    places = tuple(Measurement(*at, snr if at in peaks else 30.0, 30.0, peaks.get(at, 3.0)) for at in order)
    return SnrReport(recipe, layers, places, OutputError(1, 0.1, 1.0, 1.1, 20.0))


GPTQ = replace(W4A4, passes=(Gptq(),))
TURNED = replace(W4A4, passes=(FoldNorms(), Rotate(), Rtn()))
KV4 = replace(W4A4, kv=IntFormat(4, "per_token_and_head", dynamic=True, zero="integer"))
STATIC = replace(W4A4, kv=IntFormat(8, "per_head", full_range=True), passes=(Gptq(), StaticScales()))
GROUPED = replace(INT4_WEIGHT, granularity="per_group", group=16)
A8 = replace(UINT4, bits=8)


@pytest.mark.parametrize(
    ("recipe", "bad", "changed"),
    [
        (W4A4, (0, "attn", 9), {"passes": (FoldNorms(), Rotate("hadamard", "none", r4=False), Rtn())}),
        (W4A4, (0, "mlp", 3), {"activation": A8}),
        (replace(W4A4, activation=A8), (0, "mlp", 3), {"activation": FloatFormat(16)}),
        (TURNED, (1, "attn", 9), {"passes": (Smooth(), FoldNorms(), Rotate(), Rtn())}),
        (TURNED, (None, "head", 9), {"passes": (FoldNorms(), Rotate(), Outliers(), Rtn())}),
        (W4A4, (0, "out", 9), {"passes": (FoldNorms(), Rotate("none", "hadamard", r4=False), Rtn())}),
        (TURNED, (0, "out", 9), {"passes": (FoldNorms(), Rotate(out=True), Rtn())}),
        (TURNED, (0, "down", 9), {"passes": (FoldNorms(), Rotate(), Outliers(), Rtn())}),
        (W4A4, (0, "wq", 3), {"passes": (Gptq(),)}),
        (W4A4, (0, "wq", 9), {"kinds": {"wq": GROUPED}}),
        (GPTQ, (0, "wo", 3), {"kinds": {"wo": replace(INT4_WEIGHT, bits=8)}}),
        (GPTQ, (None, "w_head", 3), {"passes": (Gptq(), LowRank())}),
        (replace(GPTQ, head=INT4_WEIGHT), (None, "w_head", 3), {"head": replace(INT4_WEIGHT, bits=8)}),
        (replace(W4A4, layer_bits={0: 3, 1: 2}), (1, "w_up", 3), {"layer_bits": {0: 3}}),
        (replace(W4A4, weight=ProgressiveFormat(4, 16)), (0, "w_up", 3), {"kinds": {"w_up": INT8_WEIGHT}}),
        (KV4, (0, "k", 6), {"passes": (FoldNorms(), Rotate("none", "none", r3=True, r4=False), Rtn())}),
        (KV4, (0, "v", 6), {"passes": (FoldNorms(), Rotate("none", "hadamard", r4=False), Rtn())}),
        (KV4, (0, "k", 2), {"kv": INT8_KV}),
        (STATIC, (0, "p", 2), {"kv": INT8_KV, "passes": (Gptq(),)}),
        (W4A4, (0, "v", 2), {"kv": None}),
    ],
    ids=lambda value: ":".join(map(str, value)) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_advice(recipe, bad, changed):
    report = made(recipe, bad)
    (only,) = suggestions(report, RandomModel.config)
    assert only.recipe == replace(recipe, **changed)
    assert bad[1] in only.reason
    assert "5.0 dB" in only.reason
    assert [(m.layer, m.place) for m in only.measurements] == [bad[:2]]
    # The lines alone, put in place of what was there, are the recipe.
    lines = tomllib.loads(only.toml)
    gone = [line.removeprefix("# without ") for line in only.toml.splitlines() if line.startswith("#")]
    fields = recipe_to_dict(recipe)
    for key, value in lines.items():
        merge = key in ("kinds", "layer_bits")
        fields[key] = {**fields[key], **value} if merge else value
    for path in gone:
        *outer, last = path.split(".")
        (fields[outer[0]] if outer else fields).pop(last)
    assert recipe_from_dict(fields) == only.recipe


def test_all_kinds_bad_change_the_weight_itself():
    kinds = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
    (only,) = suggestions(made(GPTQ, *((0, kind, 3) for kind in kinds)), RandomModel.config)
    assert only.recipe == replace(GPTQ, weight=replace(INT4_WEIGHT, bits=8))


def test_a_size_without_hadamard_matrix_keeps_channels():
    config = replace_config(intermediate_size=46)
    (only,) = suggestions(made(W4A4, (0, "down", 9)), config)
    assert only.recipe.passes == (Outliers(), Rtn())


def replace_config(**fields):
    return RandomModel.config.model_copy(update=fields)


def test_a_bad_stream_blames_the_worst_place():
    report = made(W4A4, (1, "stream", 3), snr=STREAM_DB - 1)
    places = [replace(m, snr=16.0) if (m.layer, m.place) == (0, "w_up") else m for m in report.measurements]
    report = replace(report, measurements=tuple(places))
    assert report.first_bad().place == "stream"
    (only,) = suggestions(report, RandomModel.config)
    assert (only.measurements[0].place, only.recipe.passes) == ("w_up", (Gptq(),))


def test_bad_attention_blames_the_worst_inside():
    report = made(KV4, (0, "attention", 2))
    places = [replace(m, snr=18.0) if (m.layer, m.place) == (0, "v") else m for m in report.measurements]
    (only,) = suggestions(replace(report, measurements=tuple(places)), RandomModel.config)
    assert (only.cause, only.measurements[0].place, only.recipe.kv) == ("values", "v", INT8_KV)


def test_lost_signals_are_bad():
    assert Measurement(0, "attn", -math.inf, -math.inf).bad
    assert not Measurement(0, "stream", STREAM_DB, 0.0).bad
    assert Measurement(0, "attn", STREAM_DB, 0.0).bad
    model = RandomModel()
    ids = random_samples(model)
    assert sticks_out(6.0, 64)
    assert not sticks_out(4.0, 64)
    assert not sticks_out(None, 64)
    view = apply_float_passes(model, W4A4, None)
    broken = [
        (name, replace(value, scale=value.scale * np.float32(np.nan)) if name == "layers.1.wq" else value)
        for name, value in round_tensors(view, W4A4, None)
    ]
    with np.errstate(invalid="ignore"):
        report = measure_snr(view, W4A4, broken, ids)
    assert [m.snr for m in report.measurements if m.layer == 1][1] == -math.inf
    assert all(report.at(1, place).bad for place in ("wq", "stream"))
    assert not report.at(1, "wk").bad
    assert math.isnan(report.output.kl)
    check_page(snr_page(report, suggestions(report, model.config), W4A4, {}))
    assert "NaN" not in json.dumps(snr_dict(report, (), {}))


# ---------------------------------------------------------------------------------------------- the page

VOID = {"meta", "br", "hr"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes += attrs

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(text: str) -> Balanced:
    """Balanced, XML, and nothing in it that a browser would fetch or run."""
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(parser.tags)
    assert not {"src", "href", "xlink:href", "srcset"} & {name for name, _ in parser.attributes}
    assert not any(mark in text for mark in ("://", "url(", "@import"))
    return parser


def test_the_page(noisy, planted):
    advice = suggestions(noisy, planted.config)
    better = repaired(noisy, planted.config)
    text = snr_page(noisy, advice, better, {"text": "<b>&\"'"})
    parser = check_page(text)
    assert parser.tags.count("svg") == 5
    assert parser.tags.count("figcaption") == 5
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    for plot in root.iter("svg"):
        assert plot.get("role") == "img"
        assert plot.find("title").text
        assert plot.find("desc").text
    words = "".join(root.itertext())
    assert "First bad place: layer 0, attn" in words
    assert "<b>&\"'" in words
    for suggestion in advice:
        assert suggestion.action in words
        assert suggestion.toml in words
    blocks = ["".join(code.itertext()) for code in root.iter("code")]
    assert parse_recipe(blocks[-1]) == better
    cells = [c for c in root.iter("rect") if c.get("class") == "cell"]
    assert len(cells) == 4 * len(PLACES)
    bold = sum(t.get("class") == "bad" for t in root.iter("text"))
    assert bold == len([m for m in noisy.bad() if m.layer is not None])


def test_the_page_of_an_exact_model():
    model = RandomModel()
    report = measured(model, recipes["none"], random_samples(model))
    text = snr_page(report, (), recipes["none"], {})
    check_page(text)
    assert "No bad layer" in text
    assert text.count("nothing to show: all of it is exact") == 4


def test_a_line_breaks_at_a_gap():
    text = svg.line_chart("t", {"a": [1.0, None, 3.0, 4.0]}, list("wxyz"), "x", "dB", threshold=2.0)
    root = ElementTree.fromstring(text)
    (line,) = (
        p for g in root.iter("g") for p in g if p.get("class") == "line" and "transform" not in g.keys()
    )
    assert line.get("d").count("M") == 2
    assert line.get("d").count("L") == 1
    assert [t.text for t in root.iter("title")][1:] == ["a, w: 1.0", "a, y: 3.0", "a, z: 4.0"]


def test_axes_have_round_steps():
    text = svg.line_chart("t", {"a": [-3.0, 41.0]}, ["0", "1"], "x", "dB")
    labels = [t.text for t in ElementTree.fromstring(text).iter("text") if t.get("text-anchor") == "end"]
    assert labels == ["-10", "0", "10", "20", "30", "40", "50"]


def test_text_is_escaped():
    check_page(html.page("<t>", "&", html.table(["<h>"], [["<r>"]], "<c>"), html.code("a < b && 'c'")))


# ------------------------------------------------------------------------------------------- the command


def flexllm(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def refused(code: str, *arguments: object) -> str:
    result = flexllm("report", *arguments)
    assert result.exit_code == 2, result.output
    assert f"Error {code}: " in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def planted_folder(planted, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "model"
    folder.mkdir()
    tensors = {name: value for name, value in planted.tensors.items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder)
    return folder


@pytest.fixture
def short_text(tmp_path) -> Path:
    text = (TINY / "heldout.txt").read_text(encoding="utf-8")[:600]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    return tmp_path / "text.txt"


def test_the_command(planted_folder, short_text, tmp_path):
    (tmp_path / "mine.toml").write_text(TOML)
    page = tmp_path / "report.html"
    result = flexllm(
        "report", planted_folder, "--recipe", tmp_path / "mine.toml", "--text", short_text, "--out", page
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    check_page(page.read_text())
    content = json.loads((tmp_path / "report.json").read_text())
    assert list(content) == [
        "recipe", "layers", "thresholds_db", "output", "first_bad", "suggestions", "measurements", "settings",
    ]  # fmt: skip
    assert {key: content["first_bad"][key] for key in ("layer", "place", "bad")} == {
        "layer": 0, "place": "attn", "bad": True,
    }  # fmt: skip
    assert list(content["first_bad"]) == ["layer", "place", "snr_db", "values_db", "peak", "bad"]
    assert recipe_from_dict(content["recipe"]) == parse_recipe(TOML, name="mine")
    assert len(content["measurements"]) == 4 * len(PLACES) + 2
    assert content["output"]["ppl"] > 2 * content["output"]["ppl_float"]
    assert content["settings"]["windows"] == 1
    assert content["settings"]["calibration"] is None
    assert content["thresholds_db"] == {"local": LOCAL_DB, "stream": STREAM_DB}
    assert list(content["suggestions"][0]) == ["cause", "places", "reason", "action", "toml", "recipe"]
    rotated = recipe_from_dict(content["suggestions"][0]["recipe"])
    assert rotated.find(Rotate).r1 == "hadamard"
    assert all(m["snr_db"] is None for m in content["measurements"] if m["place"] == "attention")
    for told in ("layer 0, attn", "Rotate the residual stream", 'r1 = "hadamard"'):
        assert told in result.stdout


def test_a_quantized_folder(planted_folder, short_text, tmp_path):
    recipe = TOML.replace('{ pass = "rtn" }', '{ pass = "smooth" }, { pass = "rtn" }')
    (tmp_path / "smooth.toml").write_text(recipe)
    out = tmp_path / "out"
    made_by = ("--samples", 2, "--length", 48, "--seed", 3, "--recipe", tmp_path / "smooth.toml")
    result = flexllm("quantize", planted_folder, *made_by, "--out", out)
    assert result.exit_code == 0, result.output
    common = ("--text", short_text, "--out", tmp_path / "a.html")
    assert "add --float DIR" in refused("FX703", out, *common)
    assert "model.safetensors differs" in refused("FX604", out, "--float", TINY, *common)
    other = (*common, "--calibration", TINY / "heldout.txt")
    assert "not the calibration text" in refused("FX607", out, "--float", planted_folder, *other)
    wrong = ("--float", planted_folder, "--recipe", "w8a8kv8")
    assert "with recipe 'smooth', not 'w8a8kv8'" in refused("FX604", out, *wrong, *common)
    assert not (tmp_path / "a.html").exists()
    result = flexllm("report", out, "--float", planted_folder, *common)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["settings"]["calibration"]["seed"] == 3
    checkpoint = load_checkpoint(planted_folder)
    chosen = calibration_tokens(checkpoint, Calibration(None, 2, 48, 3))
    text = short_text.read_text(encoding="utf-8")
    window = np.asarray([checkpoint.encode(text)], np.int32)
    expected = measured(checkpoint, parse_recipe(recipe, name="smooth"), window, chosen)
    assert content["settings"]["length"] == window.shape[1]
    for found, m in zip(content["measurements"], expected.measurements, strict=True):
        assert found["snr_db"] == (pytest.approx(m.snr, rel=1e-6) if math.isfinite(m.snr) else None)
    assert content["output"]["kl"] == pytest.approx(expected.output.kl, rel=1e-6)


def test_refusals(short_text, tmp_path):
    out = ("--out", tmp_path / "a.html")
    (tmp_path / "empty.txt").write_text("")
    assert "no token to predict" in refused("FX703", TINY, "--text", tmp_path / "empty.txt", *out)
    assert "cannot read the text" in refused("FX703", TINY, "--text", tmp_path / "absent.txt", *out)
    assert "w8a8kv8" in refused("FX604", TINY, "--recipe", "w8a8", *out)
    assert "is a float model itself" in refused("FX703", TINY, "--float", TINY, *out)
    assert "are both" in refused("FX703", TINY, "--out", tmp_path / "a.json")
    assert "there is no folder" in refused("FX702", TINY, "--out", tmp_path / "no" / "a.html")
    refused("FX601", tmp_path / "absent", *out)
    assert not list(tmp_path.glob("a.*"))
