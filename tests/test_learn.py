"""Learned rotations: steps stay orthogonal and descend, the result is never worse than the start."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from float_llama import forward, random_model
from quant_models import TINY, RandomModel, logits, random_samples, recipe

from flexllm_allo.errors import QuantError
from flexllm_allo.models.hf import load_checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import get_recipe, quantize
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_WEIGHT, IntFormat
from flexllm_allo.quant.passes import FoldNorms, Gptq, Rotate, Rtn
from flexllm_allo.quant.pipeline import quantize_tensors
from flexllm_allo.quant.recipes import Recipe
from flexllm_allo.quant.transform import learn
from flexllm_allo.quant.transform.hadamard import Online
from flexllm_allo.quant.transform.learn import cayley_step, learn_rotations
from flexllm_allo.quant.transform.planting import plant_outliers
from flexllm_allo.quant.transform.rotation import Rotations, fold_norms, random_rotations, rotate
from flexllm_allo.quant.transform.trial import Losses, Trial, is_better

torch = pytest.importorskip("torch")
LEARNED = Rotate("learned", "learned", r3=True, r4=True, steps=6)


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
    """Six steps on the tiny model with outliers, and every rotation on the way; no trial behind them."""
    model, tokens = plant_outliers(load_checkpoint(TINY)), sequences(12, 48)
    seen, steps = [], []
    original = learn.cayley_step

    def recorded(*args, **kw):
        made = original(*args, **kw)
        seen.append(made[0])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "cayley_step", recorded)
        patch.setattr(learn, "is_better", lambda *_: True)
        made = learn_rotations(
            fold_norms(model), get_recipe("w4a4kv4"), tokens, LEARNED, lambda *s: steps.append(s)
        )
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


@pytest.mark.parametrize("verdict", [False, True])
def test_what_is_learned_is_kept_only_if_the_rounded_model_is_better(run, monkeypatch, verdict):
    seen = []

    def judge(losses, start, held):
        seen.append((losses.distance, start.distance))
        assert held == 3  # of 12 sequences
        return verdict

    monkeypatch.setattr(learn, "is_better", judge)
    recipe, tokens = get_recipe("w4a4kv4"), run.tokens
    made = learn_rotations(fold_norms(run.model), recipe, tokens, LEARNED)
    start = random_rotations(run.model.config, LEARNED)
    assert np.array_equal(made.r1, start.r1) == (not verdict)
    trial = Trial(fold_norms(run.model), recipe, tokens)
    np.testing.assert_array_equal(seen[0][1], trial.losses(start).distance)
    if verdict:
        np.testing.assert_array_equal(seen[0][0], trial.losses(made).distance)


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


# ----------------------------------------------------------------------------------- the trial


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rounding", [Rtn(), Gptq()])
def test_the_trial_is_of_the_model_as_it_will_be(rounding):
    model, samples = RandomModel(), random_samples(RandomModel())
    turn = Rotate("hadamard", "hadamard", r4=False)
    r, none = recipe(FoldNorms(), turn, rounding), get_recipe("none")
    losses = Trial(fold_norms(model), r, samples).losses(random_rotations(model.config, turn))
    exact, found = (dict(quantize_tensors(model, x, samples)) for x in (none, r))
    for i, tokens in enumerate(samples):
        p = np.exp(log_softmax(logits(model, exact, none, tokens)))
        log_q = log_softmax(logits(model, found, r, tokens))
        assert losses.distance[i] == pytest.approx(-(p * log_q).sum(axis=1).mean(), rel=1e-5)
        text = [log_q[t, token] for t, token in enumerate(tokens[1:])]
        assert losses.text[i] == pytest.approx(-np.mean(text), rel=1e-5)


def test_without_rounding_all_rotations_are_equal():
    model, turn = RandomModel(), Rotate(r4=False)
    r = Recipe("exact", None, None, None, None, passes=(FoldNorms(), turn))
    trial = Trial(fold_norms(model), r, random_samples(model))
    found, plain = trial.losses(random_rotations(model.config, turn)), trial.losses(Rotations())
    np.testing.assert_allclose(found.distance, plain.distance, rtol=1e-5)
    np.testing.assert_allclose(found.text, plain.text, rtol=1e-5)


def test_only_a_gain_beyond_chance_counts():
    rng = np.random.default_rng(0)
    start, noise = Losses(*rng.normal(3, 0.2, (2, 32))), rng.normal(0, 0.01, 32)
    noise[-16:] -= noise[-16:].mean()
    standard_error = noise[-16:].std(ddof=1) / 4

    def judged(distance, text, held=16):
        return is_better(Losses(start.distance + distance, start.text + text), start, held)

    assert judged(noise - 2.1 * standard_error, -1e-6)
    assert not judged(noise - 1.9 * standard_error, -1e-6)
    assert not judged(noise - 2.1 * standard_error, 1e-6)
    assert not judged(0, 0)
    # Sequences that were learned from do not count in the distance.
    assert not judged(np.where(np.arange(32) < 16, -1.0, 0.01), -1)
    assert judged(-1e-6, -1e-6, held=1)
    assert not judged(1e-6, -1e-6, held=1)


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
