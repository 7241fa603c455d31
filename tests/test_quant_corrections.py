"""What stays in float beside the integers, and the passes on the float model."""

from __future__ import annotations

import numpy as np
import pytest
from quant_models import RandomModel, logits, random_samples, recipe, relative

from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_ACTIVATION, INT8_WEIGHT, NM, IntFormat
from flexllm_allo.quant.names import tensor_name
from flexllm_allo.quant.passes import (
    Awq,
    Gptq,
    LowRank,
    Outliers,
    Prune,
    Rtn,
    Smooth,
)
from flexllm_allo.quant.pipeline import quantize_tensors
from flexllm_allo.quant.recipes import SITES, recipes
from flexllm_allo.quant.transform.float_passes import apply_float_passes
from flexllm_allo.quant.transform.planting import plant_outliers
from flexllm_allo.quant.transform.smooth import smooth

# ---- corrections ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Rtn(), Gptq()])
@pytest.mark.parametrize(
    "fmt",
    [INT4_WEIGHT, IntFormat(3, "per_group", zero="integer", group=16, sparsity=NM())],
    ids=["int4", "2:4"],
)
def test_outlier_channels_leave_the_integers(method, fmt):
    model = plant_outliers(RandomModel(), 0.06, 40.0, seed=3)
    samples = random_samples(model)
    r = recipe(Outliers(2), method, weight=fmt)
    found = dict(quantize_tensors(model, r, samples))
    planted = np.flatnonzero(model.tensors[tensor_name("attn_norm", 0)] > 10)
    assert found["layers.0.attn.outliers"].tolist() == planted.tolist()
    for i, site in ((i, site) for i in range(2) for site in SITES if site != "head"):
        outliers = found[f"layers.{i}.{site}.outliers"]
        assert outliers.dtype == np.int32
        for kind in SITES[site]:
            weight = model.tensors[tensor_name(kind, i)]
            assert not found[f"layers.{i}.{kind}"].integers()[:, outliers].any()
            assert (found[f"layers.{i}.{kind}.side"] == weight[:, outliers]).all()
    assert (found["w_head.side"] == model.tensors[tensor_name("w_head")][:, found["head.outliers"]]).all()


def test_outliers_in_float_save_the_outlier_model():
    model = plant_outliers(RandomModel(), 0.06, 40.0)
    samples, window = random_samples(model), random_samples(model, 1, 20, seed=9)[0]
    none = recipes["none"]
    plain = logits(model, dict(quantize_tensors(model, none)), none, window)
    eight = {"weight": INT8_WEIGHT, "activation": INT8_ACTIVATION}
    kept, cut = recipe(Outliers(2), Rtn(), **eight), recipe(Rtn(), **eight)
    with_them = relative(logits(model, dict(quantize_tensors(model, kept, samples)), kept, window), plain)
    without = relative(logits(model, dict(quantize_tensors(model, cut)), cut, window), plain)
    assert with_them < 0.5 * without


def test_corrections_of_full_rank_are_exact():
    model = RandomModel(intermediate_size=32)
    samples, window = random_samples(model), random_samples(model, 1, 20, seed=9)[0]
    none = recipes["none"]
    plain = logits(model, dict(quantize_tensors(model, none)), none, window)
    for passes, width in (
        ((Rtn(), LowRank(32)), 32),
        ((Outliers(3), Rtn(), LowRank(32)), 35),
        ((Outliers(32), Rtn()), 32),
    ):
        r = recipe(*passes, activation=None, kv=None)
        found = dict(quantize_tensors(model, r, samples))
        assert found["layers.0.wk.side"].shape == (8, width)
        assert found["layers.0.wk.side"].dtype == np.float32
        assert relative(logits(model, found, r, window), plain) < 1e-4
    cut = recipe(Rtn(), activation=None, kv=None)
    assert relative(logits(model, dict(quantize_tensors(model, cut)), cut, window), plain) > 0.05


def test_the_weight_of_the_last_site_ends_a_layer():
    model = RandomModel()
    names = [name for name, _ in quantize_tensors(model, recipe(Rtn(), LowRank(2)))]
    ends = [i for i, name in enumerate(names) if name.endswith("w_down")]
    assert [name.split(".")[1] for name in names[1 : ends[0] + 1]] == ["0"] * ends[0]
    assert names[ends[0] + 1].startswith("layers.1.")
    assert names[ends[1] + 1] == "final_norm"
    assert names[-1] == "w_head"


def test_pruning_takes_the_sparse_kinds_or_all_in_the_blocks():
    model = RandomModel()
    samples = random_samples(model)
    for method in (Rtn(), Gptq()):
        found = dict(quantize_tensors(model, recipe(Prune("magnitude"), method), samples))
        kept = found["layers.0.wq"].integers().reshape(32, -1, 4) != 0
        assert kept.sum(axis=-1).max() == 2
        assert (found["w_head"].integers().reshape(40, -1, 4) != 0).sum(axis=-1).max() == 4
    sparse = IntFormat(4, "per_channel", zero="integer", sparsity=NM())
    r = recipe(Prune(), Rtn(), weight=sparse, kinds={"w_down": INT4_WEIGHT})
    found = dict(quantize_tensors(model, r, samples))
    assert found["layers.1.w_up"].index is not None
    assert (found["layers.1.w_down"].integers().reshape(32, -1, 4) != 0).sum(axis=-1).max() == 4


# ---- float passes --------------------------------------------------------------------------


def function_of(model, window):
    none = recipes["none"]
    return logits(model, dict(quantize_tensors(model, none)), none, window)


def test_smoothing_and_planting_do_not_change_the_function():
    model = RandomModel()
    window = random_samples(model, 1, 24)[0]
    plain = function_of(model, window)
    rng = np.random.default_rng(4)
    scales = {(i, site): rng.uniform(0.1, 9, 32) for i in range(2) for site in ("attn", "mlp")}
    assert relative(function_of(smooth(model, scales), window), plain) < 1e-5
    planted = plant_outliers(model, 0.1, 50.0, seed=1, inner=20.0)
    assert relative(function_of(planted, window), plain) < 1e-5
    gain, wider = (m.tensors[tensor_name("mlp_norm", 1)] for m in (model, planted))
    assert np.isclose(wider / gain, 50).sum() == 3
    down, smaller = (m.tensors[tensor_name("w_down", 1)] for m in (model, planted))
    assert np.isclose(down / smaller, 20).all(axis=0).sum() == 5
    assert planted.tensors.keys() == model.tensors.keys()
    assert planted.config is model.config


@pytest.mark.parametrize("first", [Smooth(), Awq(grid=4)])
def test_smoothing_evens_out_the_planted_channels(first):
    model = plant_outliers(RandomModel(), 0.06, 40.0)
    samples, window = random_samples(model), random_samples(model, 1, 20, seed=9)[0]
    plain = function_of(model, window)
    errors = {}
    for passes in ((first, Rtn()), (Rtn(),)):
        r = recipe(*passes)
        found = dict(quantize_tensors(model, r, samples))
        errors[passes] = relative(logits(model, found, r, window), plain)
    assert errors[first, Rtn()] < 0.6 * errors[Rtn(),]
    changed = apply_float_passes(model, recipe(first, Rtn()), samples)
    assert relative(function_of(changed, window), plain) < 1e-5
