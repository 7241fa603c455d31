"""The pipeline over layers: what it yields, for which inputs sites are rounded, what data it touches."""

from __future__ import annotations

import numpy as np
import pytest
from quant_models import (
    KINDS,
    TINY,
    RandomModel,
    logits,
    random_samples,
    rebuilt,
    recipe,
    relative,
    shortened,
)

from flexllm_allo.errors import QuantError
from flexllm_allo.models.hf import load_checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import quantize
from flexllm_allo.quant.calibration import SiteStatistics, calibration_samples
from flexllm_allo.quant.decoder import (
    decode_layer,
    decoder_of,
    float_layer,
    online_of,
)
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_ACTIVATION, IntFormat
from flexllm_allo.quant.integer.gptq import gptq
from flexllm_allo.quant.integer.rounding import round_weight
from flexllm_allo.quant.names import tensor_name
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
    needs_data,
)
from flexllm_allo.quant.pipeline import quantize_tensors
from flexllm_allo.quant.recipes import SITES, recipes
from flexllm_allo.quant.transform.float_passes import apply_float_passes
from flexllm_allo.quant.weight import QuantizedWeight


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def tokens(tiny):
    return tiny.encode((TINY / "heldout.txt").read_text(encoding="utf-8"))[1:]


# ---- the decoder ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in recipes if n != "w4a4kv4"])  # that one has to learn first
def test_fake_quantization_is_the_integer_reference(tiny, tokens, name):
    model = quantize(tiny, name, calibration_samples(tokens, 0, 2, 48))
    reference, errors = ReferenceLlama(model), list[float]()
    for at in range(0, 2000, 100):
        for bos in ([0], []):
            window = [*bos, *tokens[at : at + 3]]
            found = logits(tiny, model.tensors, recipes[name], window)
            errors.append(float(relative(found, reference.prefill(window))))
    # Equal up to float rounding, where that does not tip a value over to the next code (behind a 4-bit cache
    # the first token of a window often lies on a tie); a formula that is not the same would show in every
    # window.
    assert sorted(errors)[9] < 1e-4
    assert max(errors) < 0.2


def test_samples_do_not_see_each_other():
    model = RandomModel()
    decoder, layer = decoder_of(model, 16), float_layer(model, 0)
    x = model.tensors[tensor_name("embed")][random_samples(model)]
    together = decode_layer(decoder, layer, x)
    assert (together[2] == decoder.forward(layer, x[2])).all()
    # Nor does a token see the future.
    assert relative(decoder.forward(layer, x[2, :9]), together[2, :9]) < 1e-5


def test_taps_see_every_site_once_per_sample():
    model, seen = RandomModel(), []
    x = model.tensors[tensor_name("embed")][random_samples(model, 2, 5)]
    decode_layer(decoder_of(model, 5), float_layer(model, 0), x, lambda name, v: seen.append((name, v.shape)))
    once = [
        ("q", (5, 4, 8)), ("k", (5, 1, 8)), ("v", (5, 1, 8)), ("p", (4, 5, 5)),
        ("attn", (5, 32)), ("out", (5, 32)), ("mlp", (5, 32)), ("down", (5, 48)),
    ]  # fmt: skip
    assert seen == once * 2


# ---- what comes out ------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes)
def test_every_recipe_runs_on_the_shipped_model(name, tiny, tokens):
    r = shortened(recipes[name])
    if name == "w4a4kv4":
        pytest.importorskip("torch")  # its rotations are learned
    steps = []
    samples = calibration_samples(tokens, 0, 4, 64)
    found = list(quantize_tensors(tiny, r, samples, lambda *step: steps.append(step)))
    names = [n for n, _ in found]
    assert len(set(names)) == len(names)
    expected = {"embed", "final_norm", "w_head"}
    for i in range(4):
        expected |= {f"layers.{i}.{kind}" for kind in (*KINDS, "attn_norm", "mlp_norm")}
        if r.find(StaticScales):
            expected |= {f"layers.{i}.{scale}_scale" for scale in "qkvp"}
    assert set(names) == expected
    # In order of layers, so that nothing waits for a later one.
    numbers = [int(n.split(".")[1]) for n in names if n.startswith("layers")]
    assert numbers == sorted(numbers)
    assert [(name, done) for name, done, _ in steps] == [
        ("float passes", 0), *((f"layer {i}", i + 1) for i in range(4)), ("head", 5),
    ]  # fmt: skip
    assert {total for *_, total in steps} == {6}
    tensors = dict(found)
    for i, kind in ((i, kind) for i in range(4) for kind in KINDS):
        weight, shape = tensors[f"layers.{i}.{kind}"], tiny.tensors[tensor_name(kind, i)].shape
        assert isinstance(weight, QuantizedWeight)
        assert weight.format == r.weight_of(kind)
        assert weight.shape == shape
    if r.find(StaticScales):
        assert tensors["layers.0.q_scale"].shape == tensors["layers.0.p_scale"].shape == (6,)
        assert tensors["layers.0.k_scale"].shape == tensors["layers.0.v_scale"].shape == (2,)
    window = [0, *tokens[1000:1060]]
    plain = logits(tiny, dict(quantize_tensors(tiny, recipes["none"])), recipes["none"], window)
    allowed = {"none": 0, "w8a8kv8": 0.03, "w4a8kv8": 0.15, "w2a8kv4": 0.9}.get(name, 0.4)
    assert relative(logits(tiny, tensors, r, window), plain) <= allowed


def test_the_same_seed_gives_the_same_integers():
    model = RandomModel()
    passes = (Awq(grid=2), Outliers(2), Prune(), Gptq(act_order=True), LowRank(2), StaticScales())
    r = recipe(*passes, weight=INT4_WEIGHT, kv=IntFormat(8, "per_head"))
    first, second = (dict(quantize_tensors(model, r, random_samples(model))) for _ in range(2))
    assert "layers.1.wq.side" in first
    for key, value in first.items():
        if isinstance(value, QuantizedWeight):
            assert (value.codes == second[key].codes).all()
            assert (value.scale == second[key].scale).all()
        else:
            assert (value == second[key]).all()


@pytest.mark.parametrize("name", [n for n, r in recipes.items() if not needs_data(r.passes)])
def test_recipes_without_data_are_rounding_alone(name, tiny):
    class Untouchable:
        def __getattr__(self, attribute):
            raise AssertionError("samples were looked at")

    r = recipes[name]
    found = dict(quantize_tensors(tiny, r, Untouchable()))
    model = apply_float_passes(tiny, r, None)
    for kind in KINDS:
        weight = model.tensors[tensor_name(kind, 2)]
        got = found[f"layers.2.{kind}"]
        if r.weight is None:
            assert (got.codes == weight).all()
        else:
            expected = round_weight(weight, r.weight)
            assert (got.codes == expected.codes).all()
            assert (got.scale == expected.scale).all()


def test_weights_are_read_once_and_not_kept():
    model, reads = RandomModel(), []

    class Tensors(dict):
        def __getitem__(self, name):
            reads.append(name)
            return super().__getitem__(name)

    model.tensors = Tensors(model.tensors)
    for _ in quantize_tensors(model, recipe(Rtn())):
        pass
    assert sorted(reads) == sorted(model.tensors)
    assert reads.index(tensor_name("wq", 1)) > reads.index(tensor_name("w_down", 0))


def test_layer_bits_and_kinds():
    model = RandomModel()
    eight = IntFormat(8, "per_channel")
    r = recipe(Rtn(), kinds={"w_down": eight}, layer_bits={1: 3})
    found = dict(quantize_tensors(model, r))
    assert found["layers.0.wq"].codes.min() == -8
    assert found["layers.1.wq"].codes.min() == -4
    assert found["layers.1.wq"].format == INT4_WEIGHT
    assert found["layers.0.w_down"].codes.max() == 127
    assert found["layers.1.w_down"].codes.max() == 3
    assert np.abs(found["w_head"].codes).max() == 127


# ---- which inputs sites are rounded for ----------------------------------------------------


@pytest.mark.parametrize("rotation", [None, Rotate(r3=True, r4=True, out=True)])
def test_gptq_sees_the_inputs_that_rounded_layers_produce(rotation):
    model = RandomModel()
    samples = random_samples(model)
    passes = (FoldNorms(), rotation) if rotation else ()
    r = recipe(*passes, Gptq(), StaticScales(), kv=IntFormat(8, "per_head", full_range=True))
    found = dict(quantize_tensors(model, r, samples))
    base = apply_float_passes(model, r, samples)
    decoder = decoder_of(base, 16, online_of(r))
    x = base.tensors[tensor_name("embed")][samples]
    seen = {}

    def tap(name, value):
        if name in SITES:
            seen.setdefault(name, SiteStatistics(value.shape[-1], True)).add(value)

    for i in range(2):
        seen.clear()
        x = decode_layer(decoder, rebuilt(found, i, r), x, tap)
        for site, statistics in seen.items():
            for kind in SITES[site]:
                weight = base.tensors[tensor_name(kind, i)]
                expected = gptq(weight, statistics.hessian, INT4_WEIGHT, Gptq())
                assert (expected.codes == found[f"layers.{i}.{kind}"].codes).mean() > 0.995


def test_static_scales_are_those_of_the_final_network():
    model = RandomModel()
    samples = random_samples(model)
    r = recipe(FoldNorms(), Rotate(r3=True), Gptq(), StaticScales(), kv=IntFormat(8, "per_head"))
    found = dict(quantize_tensors(model, r, samples))
    base = apply_float_passes(model, r, samples)
    x = base.tensors[tensor_name("embed")][samples]
    largest = {}

    def tap(name, value):
        if name in ("q", "k", "v"):
            largest[name] = np.maximum(largest.get(name, 0), np.abs(value).max(axis=(0, 2)))
        if name == "p":
            largest[name] = np.maximum(largest.get(name, 0), value.max(axis=(1, 2)))

    for i in range(2):
        largest.clear()
        x = decode_layer(decoder_of(base, 16, online_of(r)), rebuilt(found, i, r), x, tap)
        for name in ("q", "k", "v"):
            assert np.allclose(found[f"layers.{i}.{name}_scale"] * 127, largest[name], rtol=1e-5)
        # A first token has nobody else to look at.
        assert np.allclose(found[f"layers.{i}.p_scale"] * 255, 1)


def test_gptq_helps_the_model_on_text_it_has_not_seen(tiny, tokens):
    samples = calibration_samples(tokens[3000:], 0, 8, 128)
    window = [0, *tokens[:120]]
    plain = logits(tiny, dict(quantize_tensors(tiny, recipes["none"])), recipes["none"], window)
    errors = {}
    for method in (Rtn(), Gptq()):
        r = recipe(method, weight=IntFormat(3, "per_channel", full_range=True), activation=INT8_ACTIVATION)
        errors[type(method)] = relative(
            logits(tiny, dict(quantize_tensors(tiny, r, samples)), r, window), plain
        )
    assert errors[Gptq] < 0.9 * errors[Rtn]


# ---- refusals ------------------------------------------------------------------------------


def run(model, r, samples=None):
    for _ in quantize_tensors(model, r, samples):
        pass


@pytest.mark.parametrize("passes", [(Gptq(),), (Smooth(), Rtn()), (Rtn(), StaticScales()), (Prune(), Rtn())])
def test_data_that_is_needed_and_missing(passes):
    with pytest.raises(
        QuantError, match="recipe 'test' looks at activations and was given no calib"
    ) as caught:
        run(RandomModel(), recipe(*passes, kv=IntFormat(8, "per_head") if StaticScales() in passes else None))
    assert caught.value.code == "FX607"
    assert "calibration_samples" in caught.value.hint


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros((0, 4), np.int32), r"have the shape \[0, 4\]"),
        (np.zeros(4, np.int32), r"have the shape \[4\]"),
        (np.zeros((1, 25), np.int32), "of 25 tokens exceed the model's context of 24"),
        (np.full((1, 4), 40), "no token 40 in a vocabulary of 40"),
        (np.full((1, 4), -1), "no token -1"),
    ],
)
def test_samples_the_model_cannot_take(samples, text):
    with pytest.raises(QuantError, match=text) as caught:
        run(RandomModel(), recipe(Gptq()), samples)
    assert caught.value.code == "FX607"


@pytest.mark.parametrize("method", [Rtn(), Gptq()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_weights_are_named(method, bad):
    model = RandomModel()
    model.tensors[tensor_name("w_down", 1)][3, 2] = bad
    with pytest.raises(
        QuantError, match=r"model\.layers\.1\.mlp\.down_proj\.weight: .*row 3, column 2"
    ) as caught:
        run(model, recipe(method), random_samples(model))
    assert caught.value.code == "FX606"
    for kind, layer in (("embed", None), ("mlp_norm", 1), ("final_norm", None)):
        model = RandomModel()
        model.tensors[tensor_name(kind, layer)][2] = bad
        with pytest.raises(QuantError, match=tensor_name(kind, layer)) as caught:
            run(model, recipe(Rtn()))
        assert caught.value.code == "FX606"


def test_groups_that_do_not_divide_name_the_tensor():
    fmt = IntFormat(4, "per_group", group=32)
    text = r"model\.layers\.0\.mlp\.down_proj\.weight: rows of 48 weights do not divide into groups of 32"
    with pytest.raises(QuantError, match=text) as caught:
        run(RandomModel(), recipe(Rtn(), weight=fmt))
    assert caught.value.code == "FX606"
    assert "a group of 16 or 8 fits" in caught.value.hint


def test_activations_that_overflow_name_the_site():
    model = RandomModel()
    model.tensors[tensor_name("wv", 0)] *= np.float32(1e38)
    with (
        pytest.raises(QuantError, match="in front of layer 0, site out are not finite") as caught,
        np.errstate(all="ignore"),
    ):
        run(model, recipe(Gptq(), activation=None, kv=None, weight=None), random_samples(model))
    assert caught.value.code == "FX607"


def test_formats_need_a_pass_that_rounds():
    with pytest.raises(QuantError, match="no pass that rounds") as caught:
        run(RandomModel(), recipe(FoldNorms()))
    assert caught.value.code == "FX604"


def test_calibration_samples():
    text = np.random.default_rng(0).integers(2, 40, 101).tolist()
    first = calibration_samples(text, 1, 10, 11, seed=3)
    assert first.dtype == np.int32
    assert first.shape == (10, 11)
    assert (first[:, 0] == 1).all()
    assert (calibration_samples(text, 1, 10, 11, seed=3) == first).all()
    assert (calibration_samples(text, 1, 10, 11, seed=4) != first).any()
    # Windows of the text, none of which overlaps another: numbers tell the places.
    for seed in range(20):
        windows = calibration_samples(list(range(101)), None, 4, 20, seed)
        assert (np.diff(windows, axis=1) == 1).all()
        assert len(np.unique(windows)) == 80
    with pytest.raises(QuantError, match="has 101 tokens; 11 samples of 11 need 110") as caught:
        calibration_samples(text, 1, 11, 11)
    assert caught.value.code == "FX607"
    assert caught.value.hint == "give more text, or ask for 10 samples"
    for samples, length in ((0, 11), (1, 1)):
        with pytest.raises(QuantError, match="hold no text") as caught:
            calibration_samples(text, 1, samples, length)
        assert caught.value.code == "FX607"
