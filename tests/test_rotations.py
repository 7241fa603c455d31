"""Folded norms and rotations leave the function of a model as it is; what cannot be rotated is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from float_llama import forward, random_model

from flexllm_allo.errors import QuantError
from flexllm_allo.models.hf import Checkpoint, load_checkpoint
from flexllm_allo.quant.passes import Rotate
from flexllm_allo.quant.transform.hadamard import Online, hadamard_transform
from flexllm_allo.quant.transform.rotation import fold_norms, random_rotations, rotate

TINY = Path(__file__).parent.parent / "models" / "tiny"
TOKENS = np.random.default_rng(9).integers(0, 61, 17)
EVERYTHING = Rotate(r3=True, r4=True, out=True)
SHAPES = {
    "GQA 4:1, hidden 24, intermediate 28": {"head_dim": 12},
    "tied": {"tie_word_embeddings": True, "head_dim": 12, "intermediate_size": 344},
    "hidden 48, 6 heads of 8": {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3,
                                "head_dim": 8, "intermediate_size": 172 * 2},
    "hidden 192, no grouping": {"hidden_size": 192, "num_attention_heads": 12, "num_key_value_heads": 12,
                                "head_dim": 16, "intermediate_size": 512, "num_hidden_layers": 1},
    "powers of two": {"hidden_size": 32, "head_dim": 8, "intermediate_size": 64},
}  # fmt: skip


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


# -------------------------------------------------------------------------------- equivalence


def test_the_float_model_of_these_tests_is_the_one_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = np.random.default_rng(1).integers(0, 2048, 33)
    oracle = transformers.LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    with torch.no_grad():
        expected = oracle(torch.tensor(tokens[None])).logits[0].numpy()
    assert relative(forward(load_checkpoint(TINY), tokens), expected) < 1e-5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_folded_and_rotated_models_compute_the_same_logits(shape):
    model = random_model(**shape)
    expected = forward(model, TOKENS)
    folded = fold_norms(model)
    assert relative(forward(folded, TOKENS), expected) < 1e-5
    rotations = random_rotations(model.config, EVERYTHING)
    rotated = rotate(folded, rotations)
    assert relative(forward(rotated, TOKENS, rotations.online), expected) < 1e-5
    # The online transforms do take part: without them the weights do not fit.
    assert relative(forward(rotated, TOKENS), expected) > 1e-2


@pytest.mark.parametrize("name", ["r1", "r2", "r3", "r4", "out"])
def test_each_rotation_alone_keeps_the_function_and_only_touches_its_weights(name):
    model = random_model(head_dim=12)
    off = {"r1": "none", "r2": "none", "r4": False}
    passed = Rotate(**{**off, name: "hadamard" if name in ("r1", "r2") else True})
    rotations = random_rotations(model.config, passed)
    folded = fold_norms(model)
    rotated = rotate(folded, rotations)
    assert relative(forward(rotated, TOKENS, rotations.online), forward(model, TOKENS)) < 1e-5
    changed = {
        n.removesuffix(".weight").rpartition(".")[2]
        for n in folded.tensors
        if not np.array_equal(folded.tensors[n], rotated.tensors[n])
    }
    assert changed == {
        "r1": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens",
               "lm_head"},
        "r2": {"v_proj", "o_proj"}, "r3": set(), "r4": {"down_proj"}, "out": {"o_proj"},
    }[name]  # fmt: skip


def test_r3_keeps_the_scores_though_it_turns_queries_and_keys():
    model = random_model(head_dim=12)
    with_r3: list[np.ndarray] = []
    without: list[np.ndarray] = []
    forward(model, TOKENS, Online(r3=True), with_r3)
    forward(model, TOKENS, Online(), without)
    np.testing.assert_allclose(with_r3, without, rtol=0, atol=1e-12)


def test_the_tiny_checkpoint_with_its_tied_head():
    model = load_checkpoint(TINY)
    assert model.config.tie_word_embeddings
    tokens = np.random.default_rng(1).integers(0, 2048, 40)
    rotations = random_rotations(model.config, EVERYTHING)
    rotated = rotate(fold_norms(model), rotations)
    assert relative(forward(rotated, tokens, rotations.online), forward(model, tokens)) < 1e-5
    embed, head = (rotated.tensors[f"{n}.weight"] for n in ("model.embed_tokens", "lm_head"))
    # Each is rotated once, by its own rule: only the head takes the gain of the final norm.
    table = model.tensors["model.embed_tokens.weight"].astype(np.float64)
    np.testing.assert_allclose(embed, table @ rotations.r1, atol=1e-6)
    np.testing.assert_allclose(head, table * model.tensors["model.norm.weight"] @ rotations.r1, atol=1e-5)


def test_rotation_spreads_the_outliers_of_a_channel():
    model = random_model(hidden_size=192, head_dim=16)
    model.tensors["model.embed_tokens.weight"][:, 7] *= 50
    rotated = rotate(fold_norms(model), random_rotations(model.config, Rotate()))

    def peak(table: np.ndarray) -> float:
        return float((np.abs(table).max(1) / np.sqrt((table**2).mean(1))).mean())

    before = peak(model.tensors["model.embed_tokens.weight"])
    assert before > 10 > 4 > peak(rotated.tensors["model.embed_tokens.weight"])


# ---------------------------------------------------------------------------------- rotations


@pytest.mark.parametrize("hidden", [24, 92, 192])  # 92 has no Hadamard matrix
def test_random_rotations_are_orthogonal_and_follow_from_the_seed(hidden):
    config = random_model(hidden_size=hidden, head_dim=6).config
    made = random_rotations(config, Rotate(seed=3))
    assert made.r1.dtype == made.r2.dtype == np.float64
    assert made.r2.shape == (2, 6, 6)
    for matrix in (made.r1, *made.r2):
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(len(matrix)), rtol=0, atol=1e-12)
    if hidden != 92:
        np.testing.assert_allclose(np.abs(made.r1), hidden**-0.5, rtol=1e-12)
    again, other = random_rotations(config, Rotate(seed=3)), random_rotations(config, Rotate(seed=4))
    np.testing.assert_array_equal(made.r1, again.r1)
    np.testing.assert_array_equal(made.r2, again.r2)
    assert not np.array_equal(made.r1, other.r1)
    assert not np.array_equal(made.r2[0], made.r2[1])


def test_what_a_pass_leaves_out_is_not_there():
    config = random_model().config
    made = random_rotations(config, Rotate("none", "none", r3=False, r4=False))
    assert (made.r1, made.r2, made.online) == (None, None, Online())
    assert random_rotations(config, Rotate(r3=False, r4=True)).online == Online(r4=True)


@pytest.mark.parametrize(
    ("shape", "pass_", "place"),
    [
        ({"head_dim": 6}, Rotate(r3=True), r"queries and keys \(r3, head_dim\).*size 6 "),
        ({"intermediate_size": 172}, Rotate(r4=True), r"down_proj \(r4, intermediate_size\).*size 172 "),
        ({"head_dim": 46, "num_attention_heads": 2}, Rotate(out=True, r4=False), r"o_proj \(out\).*size 92 "),
    ],
)
def test_an_online_transform_needs_a_hadamard_matrix(shape, pass_, place):
    with pytest.raises(QuantError, match=place) as caught:
        random_rotations(random_model(**shape).config, pass_)
    assert caught.value.code == "FX604"
    assert "nearest sizes are" in str(caught.value)
    assert "or leave this rotation out" in str(caught.value)


def test_rotating_without_folded_norms_is_refused():
    model = random_model()
    with pytest.raises(QuantError, match=r"gains in .*norm\.weight are not 1") as caught:
        rotate(model, random_rotations(model.config, Rotate()))
    assert "fold_norms(model) first" in str(caught.value)


# -------------------------------------------------------------------------------------- views


def test_views_keep_nothing_and_read_only_what_is_asked():
    model = random_model()
    reads: list[str] = []

    class Counting(dict):
        def __getitem__(self, name):
            reads.append(name)
            return super().__getitem__(name)

    counting = type(model)(model.config, Counting(model.tensors))
    rotated = rotate(fold_norms(counting), random_rotations(model.config, Rotate()))
    reads.clear()
    view = rotated.tensors
    assert list(view) == list(model.tensors)
    assert "lm_head.weight" in view
    assert reads == []
    name = "model.layers.1.mlp.down_proj.weight"
    first, second = view[name], view[name]
    assert reads == [name, name]
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first is not second
    with pytest.raises(KeyError):
        view["model.layers.9.mlp.down_proj.weight"]
    np.testing.assert_array_equal(rotated.rope_tables(5)[0], model.rope_tables(5)[0])


def test_folded_gains_are_one_and_the_embedding_is_left_alone():
    model = random_model(tie_word_embeddings=True)
    tensors = fold_norms(model).tensors
    assert all((tensors[n] == 1).all() for n in tensors if n.endswith("norm.weight"))
    table = model.tensors["model.embed_tokens.weight"]
    np.testing.assert_array_equal(tensors["model.embed_tokens.weight"], table)
    np.testing.assert_array_equal(tensors["lm_head.weight"], table * model.tensors["model.norm.weight"])
    for kept in ("self_attn.o_proj", "mlp.down_proj"):
        name = f"model.layers.0.{kept}.weight"
        np.testing.assert_array_equal(tensors[name], model.tensors[name])


def test_a_live_model_is_rotated_as_well():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=28, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=1, head_dim=6, max_position_embeddings=64,
    )  # fmt: skip
    model = Checkpoint.from_transformers(transformers.LlamaForCausalLM(config))
    rotations = random_rotations(model.config, Rotate())
    rotated = rotate(fold_norms(model), rotations)
    assert relative(forward(rotated, TOKENS, rotations.online), forward(model, TOKENS)) < 1e-5
    down = rotated.tensors["model.layers.0.mlp.down_proj.weight"]
    plain = model.tensors["model.layers.0.mlp.down_proj.weight"].astype(np.float64)
    np.testing.assert_allclose(down, hadamard_transform(rotations.r1.T @ plain), atol=1e-7)
