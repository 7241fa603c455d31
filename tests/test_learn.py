"""Learned rotations: steps stay orthogonal and descend, the result is never worse than the start."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from float_llama import forward, random_model

from flexllm_allo.errors import QuantError
from flexllm_allo.models.hf import load_checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import get_recipe, quantize
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_WEIGHT, FloatFormat, IntFormat, ProgressiveFormat
from flexllm_allo.quant.integer.rtn import quantize_rows, quantize_weight
from flexllm_allo.quant.passes import FoldNorms, Rotate, Rtn
from flexllm_allo.quant.recipes import Recipe
from flexllm_allo.quant.transform import learn
from flexllm_allo.quant.transform.hadamard import Online
from flexllm_allo.quant.transform.learn import cayley_step, learn_rotations
from flexllm_allo.quant.transform.rotation import Rotations, fold_norms, random_rotations, rotate

torch = pytest.importorskip("torch")
TINY = Path(__file__).parent.parent / "models" / "tiny"
LEARNED = Rotate("learned", "learned", r3=True, r4=True, steps=6)


def planted(factor: float = 30.0) -> SimpleNamespace:
    """The tiny model with outlier channels: gains times a factor, the columns behind them divided by it."""
    model = load_checkpoint(TINY)
    tensors = {name: model.tensors[name].copy() for name in model.tensors}
    channels = [3, 77, 150]
    for i in range(model.config.num_hidden_layers):
        at = f"model.layers.{i}"
        for norm, reads in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            tensors[f"{at}.{norm}.weight"][channels] *= factor
            for name in reads:
                tensors[f"{at}.{name}.weight"][:, channels] /= factor
    return SimpleNamespace(config=model.config, tensors=tensors, rope_tables=model.rope_tables)


def sequences(count: int, length: int) -> np.ndarray:
    ids = load_checkpoint(TINY).encode((TINY / "heldout.txt").read_text(encoding="utf-8"))
    return np.array(ids[: count * length]).reshape(count, length)


def loss(model, recipe, tokens, rotations) -> float:
    from flexllm_allo.quant.transform.learn_model import RotatedLlama

    network = RotatedLlama.of(fold_norms(model), recipe, rotations.online, tokens.shape[1])
    return network.evaluate(tokens, {"r1": rotations.r1, "r2": rotations.r2})


# ------------------------------------------------------------------------------ Cayley steps


@pytest.mark.parametrize("shape", [(24, 24), (3, 8, 8)])
def test_a_hundred_steps_stay_orthogonal_and_descend(shape):
    rng = np.random.default_rng(0)
    r = np.linalg.qr(rng.standard_normal(shape))[0]
    target = np.linalg.qr(rng.standard_normal(shape))[0]
    # The nearest rotation of the same determinant can be reached.
    target[..., 0] *= (np.linalg.det(target) * np.linalg.det(r))[..., None]
    momentum = np.zeros(shape)
    far = np.abs(r - target).max()
    for _ in range(100):
        r, momentum = cayley_step(r, r - target, momentum, rate=0.5)
        error = np.abs(r.swapaxes(-1, -2) @ r - np.eye(shape[-1])).max()
        assert error < 1e-12
    assert np.abs(r - target).max() < far / 10


def test_a_step_is_the_fixed_point_of_the_published_iteration():
    rng = np.random.default_rng(1)
    x, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    gradient = rng.standard_normal((6, 6))
    v = -gradient
    product = v @ x.T
    hat = product - 0.5 * x @ (x.T @ product)
    w = hat - hat.T
    a = min(0.3, 1 / np.abs(w).sum(0).max())
    y = x + a * v
    for _ in range(80):
        y = x + a / 2 * w @ (x + y)
    made, momentum = cayley_step(x, gradient, np.zeros((6, 6)), 0.3)
    np.testing.assert_allclose(made, y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(momentum, w @ x, rtol=0, atol=1e-12)


def test_a_stack_takes_each_step_as_if_alone():
    rng = np.random.default_rng(2)
    r = np.linalg.qr(rng.standard_normal((3, 5, 5)))[0]
    g, m = rng.standard_normal((2, 3, 5, 5)) * np.array([1, 30, 0.01])[:, None, None]
    together, _ = cayley_step(r, g, m, 1.5)
    for i in range(3):
        np.testing.assert_allclose(together[i], cayley_step(r[i], g[i], m[i], 1.5)[0], atol=1e-13)


# ---------------------------------------------------------------------------- the whole thing


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that spin for each other take ten times as long on a machine that does something else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run():
    """Six steps on the tiny model with outliers, and every rotation on the way."""
    model, tokens = planted(), sequences(12, 48)
    seen, steps = [], []
    original = learn.cayley_step

    def recorded(*args, **kw):
        made = original(*args, **kw)
        seen.append(made[0])
        return made

    learn.cayley_step = recorded
    try:
        made = learn_rotations(
            fold_norms(model), get_recipe("w4a4kv4"), tokens, LEARNED, lambda *s: steps.append(s)
        )
    finally:
        learn.cayley_step = original
    return SimpleNamespace(model=model, tokens=tokens, made=made, seen=seen, steps=steps)


def test_rotations_stay_orthogonal_through_learning(run):
    assert len(run.seen) == 2 * LEARNED.steps
    for r in [*run.seen, run.made.r1, run.made.r2]:
        assert np.abs(r.swapaxes(-1, -2) @ r - np.eye(r.shape[-1])).max() < 1e-6


def test_learned_rotations_are_no_worse_than_where_they_began(run):
    recipe, held = get_recipe("w4a4kv4"), run.tokens[-3:]
    start = random_rotations(run.model.config, LEARNED)
    none, random, learned = (loss(run.model, recipe, held, r) for r in (Rotations(), start, run.made))
    assert none > random >= learned
    assert not np.array_equal(run.made.r1, start.r1)
    assert not np.array_equal(run.made.r2, start.r2)
    assert run.made.online == start.online


def test_progress_is_reported_for_every_step(run):
    assert [(s, n) for s, n, _ in run.steps] == [(i + 1, 6) for i in range(6)]
    assert all(0 < value < 10 for _, _, value in run.steps)


def test_equal_seeds_learn_equal_rotations(run):
    tokens = sequences(4, 16)
    few = replace(LEARNED, steps=2)
    first, second, other = (
        learn_rotations(fold_norms(run.model), get_recipe("w4a4kv8"), tokens, replace(few, seed=seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.r1, second.r1)
    np.testing.assert_array_equal(first.r2, second.r2)
    assert not np.array_equal(first.r1, other.r1)


def test_a_harmful_run_gives_back_the_start(run, monkeypatch):
    monkeypatch.setattr(learn, "cayley_step", lambda r, g, m, rate: (np.eye(r.shape[-1]) + 0 * r, m))
    made = learn_rotations(fold_norms(run.model), get_recipe("w4a4kv4"), sequences(4, 48), LEARNED)
    np.testing.assert_array_equal(made.r1, random_rotations(run.model.config, LEARNED).r1)


def test_only_what_the_pass_calls_learned_is_learned(run):
    tokens = sequences(1, 24)  # judged on the sequence it learns from
    pass_ = replace(LEARNED, r1="hadamard", steps=3)
    start = random_rotations(run.model.config, pass_)
    made = learn_rotations(fold_norms(run.model), get_recipe("w4a4kv4"), tokens, pass_)
    np.testing.assert_array_equal(made.r1, start.r1)
    fixed = replace(LEARNED, r1="hadamard", r2="none")
    assert learn_rotations(run.model, get_recipe("w4a4kv4"), tokens, fixed).r2 is None


def test_the_number_of_threads_is_left_as_it_was(run):
    torch.set_num_threads(2)
    inside = []
    learn_rotations(
        fold_norms(run.model), get_recipe("w4a4kv4"), sequences(1, 8), replace(LEARNED, steps=1),
        lambda *_: inside.append(torch.get_num_threads()),
    )  # fmt: skip
    after = torch.get_num_threads()
    torch.set_num_threads(1)
    assert (inside, after) == ([1], 2)


# ------------------------------------------------------------------------ the network it sees


@pytest.mark.parametrize("out", [False, True])
def test_without_formats_the_network_is_the_model(out):
    from flexllm_allo.quant.transform.learn_model import RotatedLlama, Turn

    model = random_model(head_dim=12, num_key_value_heads=2)
    rotations = random_rotations(model.config, Rotate(r3=True, r4=True, out=out))
    network = RotatedLlama.of(fold_norms(model), get_recipe("none"), rotations.online, 16)
    turn = Turn(*(torch.as_tensor(r.astype(np.float32)) for r in (rotations.r1, rotations.r2)))
    tokens = np.random.default_rng(0).integers(0, 61, (1, 16))
    logits = network.logits(torch.as_tensor(tokens), turn)[0].numpy()
    expected = forward(model, tokens[0])
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    # Its weights are the ones that will be quantized.
    rotated = rotate(fold_norms(model), rotations)
    for key, name in (
        ("0.wv", "self_attn.v_proj"),
        ("1.wo", "self_attn.o_proj"),
        ("1.w_down", "mlp.down_proj"),
    ):
        mine = network.rotated(key, turn).numpy()
        theirs = rotated.tensors[f"model.layers.{key[0]}.{name}.weight"]
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


KV4 = IntFormat(4, "per_token_and_head", dynamic=True, zero="integer")


@pytest.mark.parametrize(
    "formats",
    [
        {"kv": KV4},  # queries have 8 bits beside it
        {"activation": IntFormat(4, "per_token", dynamic=True, zero="float")},  # a float head reads floats
        {"kv": KV4, "weight": IntFormat(8, "per_channel"), "head": INT8_WEIGHT},
    ],
)
def test_with_formats_the_network_is_the_quantized_model(formats):
    from flexllm_allo.quant.transform.learn_model import RotatedLlama, Turn

    model = load_checkpoint(TINY)
    passes = (FoldNorms(), Rotate(r3=True, r4=True), Rtn())
    recipe = Recipe("test", **{"weight": None, "activation": None, "kv": None, "head": None} | formats)
    recipe = replace(recipe, passes=passes)
    rotations = random_rotations(model.config, passes[1])
    network = RotatedLlama.of(fold_norms(model), recipe, rotations.online, 3)
    turn = Turn(*(torch.as_tensor(r.astype(np.float32)) for r in (rotations.r1, rotations.r2)))
    reference, errors = ReferenceLlama(quantize(model, recipe)), list[float]()
    for tokens in sequences(20, 3):
        made = network.logits(torch.as_tensor(tokens[None]), turn)[0].numpy()
        expected = reference.prefill(tokens)
        errors.append(np.linalg.norm(made - expected) / np.linalg.norm(expected))
    assert np.median(errors) < 0.005


def test_weights_are_rounded_unless_gptq_follows():
    from flexllm_allo.quant.transform.learn_model import RotatedLlama

    model = load_checkpoint(TINY)
    tokens = sequences(2, 40)
    formats = (INT4_WEIGHT, None, None, INT8_WEIGHT)
    rtn = Recipe("rtn", *formats, passes=(FoldNorms(), Rotate(), Rtn()))
    none = {"r1": None, "r2": None}
    losses = [
        RotatedLlama.of(fold_norms(model), recipe, Online(), 40).evaluate(tokens, none)
        for recipe in (get_recipe("none"), rtn, replace(rtn, passes=get_recipe("w4a16").passes))
    ]
    # The least loss there is: the entropy of the float model's predictions.
    logits = np.stack([forward(model, row) for row in tokens])
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    assert losses[0] == pytest.approx(-(p * np.log(p)).sum(-1).mean(), rel=1e-5)
    assert losses[1] > losses[0] + 1e-3
    assert losses[2] == losses[0]


UINT4 = IntFormat(4, "per_token", dynamic=True, zero="float")


def test_fake_values_are_those_of_the_integer_path():
    from flexllm_allo.quant.transform.fake import fake_activation, fake_heads, fake_weight

    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 32)).astype(np.float32)
    x[2] = 0
    t = torch.as_tensor(x)
    signed = IntFormat(8, "per_token", dynamic=True)
    codes, scale = quantize_rows(x, signed)
    np.testing.assert_allclose(fake_activation(t, signed), codes * scale[:, None], atol=1e-6)
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    step = np.where(high == low, 1, (high - low) / 15)
    np.testing.assert_allclose(fake_activation(t, UINT4), np.round((x - low) / step) * step + low, atol=1e-6)
    spin = replace(UINT4, zero="integer")
    shifted = torch.as_tensor(x + 5)  # all positive: the range starts at 0
    made = fake_activation(shifted, spin).numpy()
    step = (x + 5).max(1, keepdims=True) / 15
    np.testing.assert_allclose(made, np.clip(np.round((x + 5) / step), 0, 15) * step, atol=1e-5)
    np.testing.assert_array_equal(
        fake_activation(t, FloatFormat(16)), x.astype(np.float16).astype(np.float32)
    )
    weight, scales = quantize_weight(x, INT4_WEIGHT, (1.0,))
    np.testing.assert_allclose(fake_weight(t, INT4_WEIGHT), weight * scales[:, None], atol=1e-6)
    static = fake_heads(t.reshape(1, 5, 4, 8), IntFormat(8, "per_head", full_range=True)).numpy()
    peak = np.abs(x).max(1) / 127
    np.testing.assert_allclose(
        static.reshape(5, 32), np.round(x / np.where(peak, peak, 1)[:, None]) * peak[:, None], atol=1e-6
    )


def test_fake_groups_and_progressive_weights():
    from flexllm_allo.quant.transform.fake import fake_weight

    rng = np.random.default_rng(4)
    w = torch.as_tensor(rng.standard_normal((3, 128)).astype(np.float32))
    grouped = fake_weight(w, IntFormat(4, "per_group", full_range=True, group=32))
    errors = (grouped - w).abs().reshape(3, 4, 32).amax(-1)
    assert (errors <= w.abs().reshape(3, 4, 32).amax(-1) / 14 + 1e-6).all()
    made = fake_weight(w, ProgressiveFormat(4, 64)).numpy()
    scale = np.abs(w.numpy()).max(1, keepdims=True) / 119
    whole = made / scale
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-4)
    assert np.abs(whole).max() <= 127
    assert 0 < np.abs(made - w.numpy()).max() <= (9 * scale).max()


def test_gradients_go_straight_through_and_into_the_scale():
    from flexllm_allo.quant.transform.fake import fake_activation

    x = torch.tensor([[1.0, 0.3, -0.2]], requires_grad=True)
    fake_activation(x, IntFormat(4, "per_token", dynamic=True)).sum().backward()
    exact = np.array([7, 0.3 * 7, -0.2 * 7])
    residual = (np.round(exact) - exact).sum()
    np.testing.assert_allclose(x.grad, [[1 + residual / 7, 1, 1]], atol=1e-5)


# ------------------------------------------------------------------------------------ refusals


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "flexllm_allo.quant.transform.learn_model", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    model = fold_norms(random_model())
    with pytest.raises(QuantError, match="'w4a4kv4' learns its rotations, which needs torch") as caught:
        learn_rotations(model, get_recipe("w4a4kv4"), np.zeros((1, 8), np.int64), replace(LEARNED, r3=False))
    assert caught.value.code == "FX604"
    assert "pip install 'flexllm-allo[hf]'" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 8), (3, 1), (8,)])
def test_samples_without_a_next_token_are_refused(shape):
    model = fold_norms(random_model())
    with pytest.raises(QuantError, match="rotations cannot be learned from token ids of shape") as caught:
        learn_rotations(model, get_recipe("w4a4kv4"), np.zeros(shape, int), replace(LEARNED, r3=False))
    assert caught.value.code == "FX607"


def test_unfolded_norms_are_refused():
    samples, pass_ = np.zeros((1, 8), int), replace(LEARNED, r3=False)
    with pytest.raises(QuantError, match=r"gains in model.* are not 1") as caught:
        learn_rotations(random_model(), get_recipe("w4a4kv4"), samples, pass_)
    assert "fold_norms(model) first" in str(caught.value)
