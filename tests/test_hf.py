"""Checkpoints: what is read equals what transformers wrote; what is refused is refused completely."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from flexllm_allo.errors import ModelError
from flexllm_allo.models.hf import Checkpoint, load_checkpoint, tensor_shapes
from flexllm_allo.models.spec import LlamaConfig, rope_tables

TINY = Path(__file__).parent.parent / "models" / "tiny"
SHAPE = {
    "vocab_size": 29,
    "hidden_size": 12,
    "intermediate_size": 14,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BASE = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SHAPE}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def hf_model(dtype="float32", **changes):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(SHAPE | changes))
    return transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def write_safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_checkpoint(folder, config=BASE, drop=(), shapes=None, dtypes=None):
    """A checkpoint of random tensors, with faults on demand."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, data = {}, b""
    wanted = tensor_shapes(LlamaConfig.from_dict(BASE)) | (shapes or {})
    for name, shape in wanted.items():
        if name not in drop:
            raw = np.random.default_rng(len(data)).normal(size=shape).astype(np.float32).tobytes()
            dtype = (dtypes or {}).get(name, "F32")
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    write_safetensors(folder / "model.safetensors", header, data)
    return folder


def refusal(code, function, *args):
    with pytest.raises(ModelError) as caught:
        function(*args)
    assert caught.value.code == code
    return str(caught.value)


# ------------------------------------------------------------------------- equal to transformers


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_equal_transformers(tmp_path, dtype, tied):
    model = hf_model(dtype, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config.tie_word_embeddings is tied
    state = model.state_dict()
    assert set(checkpoint.tensors) == set(state)
    for name, tensor in state.items():
        found = checkpoint.tensors[name]
        assert found.dtype == np.float32
        assert (found == tensor.float().numpy()).all(), name


@pytest.mark.parametrize("index", [True, False])
def test_sharded(tmp_path, index):
    model = hf_model()
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    if not index:
        (tmp_path / "model.safetensors.index.json").unlink()
    checkpoint = load_checkpoint(tmp_path)
    for name, tensor in model.state_dict().items():
        assert (checkpoint.tensors[name] == tensor.numpy()).all()


def test_from_transformers():
    model = hf_model("bfloat16", num_key_value_heads=3)
    checkpoint = Checkpoint.from_transformers(model)
    assert checkpoint.config.num_key_value_heads == 3
    for name, tensor in model.state_dict().items():
        assert (checkpoint.tensors[name] == tensor.float().numpy()).all()
    assert "tokenizer" in refusal("FX605", checkpoint.encode, "text")


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 1e6}, LLAMA3])
@pytest.mark.parametrize("head_dim", [10, 64, 128])
def test_rope_tables_equal_transformers(rope, head_dim):
    torch = pytest.importorskip("torch")
    model = hf_model(head_dim=head_dim, rope_parameters=rope)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(64)[None])
    config = Checkpoint.from_transformers(model).config
    assert config.rope_theta == rope["rope_theta"]
    ours = rope_tables(config, 64)
    for mine, theirs in zip(ours, (cos, sin), strict=True):
        assert mine.dtype == np.float32
        assert mine.shape == (64, head_dim // 2)
        np.testing.assert_allclose(mine, theirs[0, :, : head_dim // 2].numpy(), atol=1e-7 * 64, rtol=0)


def test_tiny_checkpoint_and_tokenizer():
    checkpoint = load_checkpoint(TINY)
    assert (checkpoint.tensors["lm_head.weight"] == checkpoint.tensors["model.embed_tokens.weight"]).all()
    text = "The for statement is used to iterate."
    ids = checkpoint.encode(text)
    assert ids[0] == checkpoint.config.bos_token_id
    assert checkpoint.decode(ids) == text
    assert checkpoint.decode(ids, skip_special_tokens=False) != text


# ---------------------------------------------------------------------------------- configuration


def test_both_rope_spellings():
    inner = {k: v for k, v in LLAMA3.items() if k not in ("rope_theta", "rope_type")}
    new = LlamaConfig.from_dict(BASE | {"rope_parameters": LLAMA3})
    for key in ("rope_type", "type"):
        old = {"rope_theta": 500000.0, "rope_scaling": {key: "llama3", **inner}}
        assert LlamaConfig.from_dict(BASE | old) == new
    plain = LlamaConfig.from_dict(BASE | {"rope_scaling": None})
    assert plain.rope_scaling is None
    assert plain.rope_theta == 10000.0
    default = {"rope_type": "default", "rope_theta": 1e4}
    assert plain == LlamaConfig.from_dict(BASE | {"rope_parameters": default})


def test_defaults_of_hugging_face():
    short = {k: v for k, v in BASE.items() if k not in ("num_key_value_heads", "head_dim")}
    config = LlamaConfig.from_dict(short)
    assert config.num_key_value_heads == 3
    assert config.head_dim == 4
    assert config.rms_norm_eps == 1e-6
    assert config.eos_token_ids == (2,)
    assert LlamaConfig.from_dict(BASE | {"eos_token_id": [2, 7]}).eos_token_ids == (2, 7)
    assert LlamaConfig.from_dict(BASE | {"eos_token_id": None}).eos_token_ids == ()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model_type": "mixtral"}, "model_type is 'mixtral'"),
        ({"model_type": None}, "model_type is None"),
        ({"architectures": ["LlamaModel"]}, "architectures"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "4 is not a multiple of num_key"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"head_dim": None, "num_attention_heads": 5}, "head_dim is missing"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"hidden_size": "12"}, "hidden_size is '12'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": 29}, "eos_token_id 29 is outside the vocabulary of 29"),
        ({"eos_token_id": [2, -1]}, "eos_token_id"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ({"rope_parameters": {k: v for k, v in LLAMA3.items() if k != "factor"}}, "factor is missing"),
        ({"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}}, "is not below high_freq_factor"),
        ({"rope_parameters": LLAMA3 | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"quant_method": "gptq"}}, "already quantised"),
    ],
)
def test_config_refusals(change, part):
    text = refusal("FX603", LlamaConfig.from_dict, BASE | change)
    assert part in text
    assert text.count("\n  - ") == (2 if part == "eos_token_id" else 1), text
    assert "help:" in text


def test_all_config_problems_at_once():
    changes = {
        "model_type": "mamba",
        "hidden_act": "gelu",
        "mlp_bias": True,
        "vocab_size": -3,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "longrope"},
        "head_dim": 5,
    }
    broken = {k: v for k, v in (BASE | changes).items() if k != "intermediate_size"}
    text = refusal("FX603", LlamaConfig.from_dict, broken)
    for part in ("model_type", "hidden_act", "mlp_bias", "vocab_size", "num_key_value_heads 2", "longrope"):
        assert part in text
    assert "head_dim 5 is odd" in text
    assert "intermediate_size is missing" in text
    assert text.count("\n  - ") == 8


# ------------------------------------------------------------------------------------------ files


def test_missing_files(tmp_path):
    assert "no folder" in refusal("FX601", load_checkpoint, tmp_path / "none")
    assert "config.json" in refusal("FX601", load_checkpoint, tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    assert "not JSON" in refusal("FX601", load_checkpoint, tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    assert "JSON object" in refusal("FX601", load_checkpoint, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(BASE))
    assert "no *.safetensors" in refusal("FX601", load_checkpoint, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "save_pretrained" in refusal("FX601", load_checkpoint, tmp_path)


def test_index_refusals(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    shards = {name: f"{name}.safetensors" for name in "abc"}
    index.write_text(json.dumps({"weight_map": shards}))
    assert "b.safetensors, c.safetensors" in refusal("FX601", load_checkpoint, tmp_path)
    for bad in ({"weight_map": {"x": "../a.safetensors"}}, {"weight_map": 3}, {}):
        index.write_text(json.dumps(bad))
        assert "weight_map" in refusal("FX601", load_checkpoint, tmp_path)
    index.unlink()
    assert len(load_checkpoint(tmp_path).tensors) == len(tensor_shapes(LlamaConfig.from_dict(BASE)))
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "in another file" in refusal("FX602", load_checkpoint, tmp_path)


def test_truncation_at_every_kind_of_place(tmp_path):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    for length in (0, 5, 8, 100, len(data) - 1):
        path.write_bytes(data[:length])
        assert "complete safetensors" in refusal("FX601", load_checkpoint, tmp_path)
    path.write_bytes(data + b"\0")
    assert "the file holds" in refusal("FX601", load_checkpoint, tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "LFS" in refusal("FX601", load_checkpoint, tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8]},
        {"dtype": 3, "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    ],
)
def test_corrupt_header(tmp_path, entry):
    write_checkpoint(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"x": entry}, b"\0" * 8)
    assert "complete safetensors" in refusal("FX601", load_checkpoint, tmp_path)


def test_header_that_is_no_object(tmp_path):
    write_checkpoint(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", [1, 2])
    assert "not a JSON object" in refusal("FX601", load_checkpoint, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 3) + b"\xff{}")
    assert "not JSON" in refusal("FX601", load_checkpoint, tmp_path)


def test_all_tensor_problems_at_once(tmp_path):
    up, norm = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"
    q = "model.layers.0.self_attn.q_proj.weight"
    write_checkpoint(
        tmp_path,
        drop=(up, "lm_head.weight"),
        shapes={q: (3, 12), "model.layers.0.self_attn.q_proj.bias": (30,), "model.rotary_emb.inv_freq": (5,)},
        dtypes={norm: "I32", "model.embed_tokens.weight": "F7_E3M3"},
    )
    text = refusal("FX602", load_checkpoint, tmp_path)
    for part in (
        f"{up} is missing, expected shape [14, 12]",
        "lm_head.weight is missing, expected shape [29, 12]",
        f"{q} has shape [3, 12], expected [30, 12]",
        f"{norm} has dtype I32, supported: F32, F16, BF16",
        "model.embed_tokens.weight has dtype F7_E3M3",
        "q_proj.bias is unexpected, shape [30]",
        "tie_word_embeddings: true",
    ):
        assert part in text
    assert text.count("\n  - ") == 6


def test_tied_head(tmp_path):
    tied = BASE | {"tie_word_embeddings": True}
    checkpoint = load_checkpoint(write_checkpoint(tmp_path, tied, drop=("lm_head.weight",)))
    assert (checkpoint.tensors["lm_head.weight"] == checkpoint.tensors["model.embed_tokens.weight"]).all()
    write_checkpoint(tmp_path, tied, drop=("lm_head.weight", "model.embed_tokens.weight"))
    assert refusal("FX602", load_checkpoint, tmp_path).count("\n  - ") == 1


def test_a_stored_head_yields_to_the_tie(tmp_path):
    # transformers ties after loading, so the stored head has no effect there either.
    checkpoint = load_checkpoint(write_checkpoint(tmp_path, BASE | {"tie_word_embeddings": True}))
    assert (checkpoint.tensors["lm_head.weight"] == checkpoint.tensors["model.embed_tokens.weight"]).all()


def test_tokenizer_refusals(tmp_path):
    checkpoint = load_checkpoint(write_checkpoint(tmp_path))
    assert "tokenizer.json" in refusal("FX605", checkpoint.encode, "text")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "cannot read" in refusal("FX605", checkpoint.encode, "text")
    shutil.copy(TINY / "tokenizer.json", tmp_path / "tokenizer.json")
    assert "vocabulary has 29" in refusal("FX605", checkpoint.encode, "The text")
