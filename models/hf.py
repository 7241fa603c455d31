"""Checkpoints as Hugging Face stores them: config.json, *.safetensors, tokenizer.json; no torch needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import ModelError, did_you_mean
from flexllm_allo.models.spec import LlamaConfig, rope_tables
from flexllm_allo.models.tensors import READABLE, Entry, Tensors, read_safetensors
from flexllm_allo.quant.names import tensor_name

EMBEDDING, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
POSITIONS = "model.embed_positions.weight"


@dataclass(frozen=True)
class Checkpoint:
    """A model of one of `families.FAMILIES`: its configuration, its float weights, and its tokenizer.

    Weights have the names and the layout of Hugging Face's Llama, whatever the family calls them.
    `tensors[name]` is float32 and read anew at each access, so a checkpoint takes no memory of its own.
    With a tied head, ``"lm_head.weight"`` is there too and equals the embedding.
    """

    config: LlamaConfig
    tensors: Tensors
    source: str
    load_tokenizer: Callable[[], Any]

    @classmethod
    def from_transformers(cls, model: Any, tokenizer: Any = None) -> Checkpoint:
        """The checkpoint of a live transformers model (`.config`, `.state_dict()`).

        Args:
            model: a `LlamaForCausalLM` or of another class of `families.FAMILIES`; its weights are converted
                tensor by tensor when used.
            tokenizer: a fast transformers tokenizer or a `tokenizers.Tokenizer`, for `encode` and `decode`.
        """
        source = f"the {type(model).__name__} given"
        raw: dict[str, Any] = dict(model.config.to_dict())
        raw["architectures"] = [type(model).__name__]
        config = LlamaConfig.from_dict(raw, source)
        state: Mapping[str, Any] = model.state_dict()
        entries = {name: _live_entry(tensor) for name, tensor in state.items()}

        def load_tokenizer() -> Any:
            if tokenizer is None:
                raise ModelError(
                    "FX605",
                    f"{source} came without a tokenizer",
                    hint="pass one: Checkpoint.from_transformers(model, tokenizer)",
                )
            return getattr(tokenizer, "backend_tokenizer", tokenizer)

        return cls(config, _check_tensors(config, entries, source), source, load_tokenizer)

    @cached_property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the checkpoint, loaded on first use."""
        return self.load_tokenizer()

    def encode(self, text: str, special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens (BOS in front) that the tokenizer adds, if wanted."""
        ids: list[int] = list(self.tokenizer.encode(text, add_special_tokens=special_tokens).ids)
        if ids and max(ids) >= self.config.vocab_size:
            raise ModelError(
                "FX605",
                f"the tokenizer of {self.source} gives token {max(ids)}, "
                f"the model's vocabulary has {self.config.vocab_size}",
                hint="tokenizer.json and config.json come from different models",
            )
        return ids

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))

    def rope_tables(self, max_seq_len: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines, float32 [max_seq_len, head_dim / 2]; see `spec.rope_tables`."""
        return rope_tables(self.config, max_seq_len)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """The checkpoint in a folder that holds config.json, safetensors files and tokenizer.json.

    Weights may be one file or several, with or without ``model.safetensors.index.json``, in float32, float16
    or bfloat16. All of them are checked now (name, shape, dtype, extent); their values are read when used.

    Raises:
        ModelError: FX601 for missing or unreadable files, FX602 for the list of all missing, unexpected
            or wrong tensors, FX603 for the list of what is not supported in config.json.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(
            "FX601",
            f"there is no folder {folder}",
            hint="give the folder of a checkpoint downloaded from Hugging Face (with config.json)",
        )
    config = LlamaConfig.from_dict(_read_json(folder / "config.json"), str(folder / "config.json"))
    entries: dict[str, Entry] = {}
    twice: list[str] = []
    for path in _weight_files(folder):
        found = read_safetensors(path)
        twice += [f"{name} is in {path.name} and in another file" for name in found if name in entries]
        entries |= found
    tensors = _check_tensors(config, entries, str(folder), twice)
    return Checkpoint(config, tensors, str(folder), lambda: _read_tokenizer(folder / "tokenizer.json"))


def checkpoint_without_weights(folder: Path) -> Checkpoint:
    """Configuration and tokenizer of a folder, whose weights are read in another way.

    Raises:
        ModelError: FX601 and FX603, as `load_checkpoint`.
    """
    config = LlamaConfig.from_dict(_read_json(folder / "config.json"), str(folder / "config.json"))
    return Checkpoint(config, Tensors({}), str(folder), lambda: _read_tokenizer(folder / "tokenizer.json"))


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model of this configuration, under Llama's names, head included."""
    hidden, inner, made_of = config.hidden_size, config.intermediate_size, config.architecture
    rows = config.num_attention_heads * config.head_dim
    kv_rows = config.num_key_value_heads * config.head_dim
    linear = {
        "wq": (rows, hidden),
        "wk": (kv_rows, hidden),
        "wv": (kv_rows, hidden),
        "wo": (hidden, rows),
        "w_gate": (inner, hidden),
        "w_up": (inner, hidden),
        "w_down": (hidden, inner),
    }
    if made_of.mlp == "gelu":
        del linear["w_gate"]
    norms = dict.fromkeys(("attn_norm", "mlp_norm"), (hidden,))
    layer: dict[str, tuple[int, ...]] = {**norms, **linear}
    layer |= {f"{kind}.bias": linear[kind][:1] for kind in made_of.biases}
    if made_of.norm == "layer":
        layer |= {f"{norm}.bias": shape for norm, shape in norms.items()}
    if made_of.qk_norm:
        layer |= dict.fromkeys(("q_norm", "k_norm"), (config.head_dim,))
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    if made_of.positions == "learned":
        shapes[POSITIONS] = (config.max_position_embeddings, hidden)
    for i in range(config.num_hidden_layers):
        shapes |= {tensor_name(kind, i): shape for kind, shape in layer.items()}
    shapes[FINAL_NORM] = (hidden,)
    if made_of.norm == "layer":
        shapes[tensor_name("final_norm.bias")] = (hidden,)
    return shapes | {HEAD: (config.vocab_size, hidden)}


def _check_tensors(
    config: LlamaConfig, entries: Mapping[str, Entry], source: str, problems: Iterable[str] = ()
) -> Tensors:
    """The tensors of the model out of all that were found, or the list of everything wrong with them."""
    found, named = config.family.read(entries), config.family.named
    if config.tie_word_embeddings and EMBEDDING in found:
        found[HEAD] = found[EMBEDDING]
    expected = tensor_shapes(config)
    problems = list(problems)
    for name, shape in expected.items():
        entry = found.get(name)
        if entry is None:
            # A tied head is absent because the embedding is; one line for that is enough.
            if name != HEAD or not config.tie_word_embeddings:
                problems.append(f"{named(name)} is missing, expected shape {list(shape)}")
        elif entry.shape != shape:
            if entry is not found.get(EMBEDDING) or name == EMBEDDING:
                problems.append(f"{named(name)} has shape {list(entry.shape)}, expected {list(shape)}")
        elif entry.dtype not in READABLE:
            problems.append(f"{named(name)} has dtype {entry.dtype}, supported: {', '.join(READABLE)}")
    # Ignoring a weight (a bias, a layer too many) would give wrong results silently.
    problems += [
        f"{named(name)} is unexpected, shape {list(entry.shape)}"
        for name, entry in found.items()
        if name not in expected
        and name.startswith(("model.", "lm_head.", "transformer."))
        and not name.endswith("inv_freq")
    ]
    if problems:
        listing = "".join(f"\n  - {problem}" for problem in problems)
        hint = "config.json and the weights must come from one checkpoint"
        if HEAD not in found and not config.tie_word_embeddings:
            hint += "; if the head shares the embedding, config.json must say tie_word_embeddings: true"
        raise ModelError("FX602", f"the weights of {source} do not fit its config.json:{listing}", hint=hint)
    return Tensors({name: found[name] for name in expected})


def _live_entry(tensor: Any) -> Entry:
    def read() -> NDArray[np.float32]:
        return np.array(tensor.detach().to("cpu").float().numpy(), dtype=np.float32, order="C")

    dtype = str(tensor.dtype).removeprefix("torch.")
    name = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(dtype, dtype)
    return Entry(tuple(int(n) for n in tensor.shape), name, read)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = ""
        if not path.exists():
            near = (p.name for p in path.parent.iterdir())
            hint = f"a checkpoint folder needs {path.name}; " + did_you_mean(path.name, near)
        raise ModelError("FX601", f"cannot read {path}: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ModelError("FX601", f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError("FX601", f"{path} does not hold a JSON object")
    return cast("dict[str, Any]", value)


def _weight_files(folder: Path) -> list[Path]:
    """One model.safetensors, or the shards of the index, or every safetensors file there is."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.exists() and not single.exists():
        shards = _read_json(index).get("weight_map")
        names = set(cast("dict[str, Any]", shards).values()) if isinstance(shards, dict) else {None}
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ModelError("FX601", f"{index} has no valid weight_map (tensor name to file name)")
        paths = sorted(folder / str(name) for name in names)
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise ModelError(
                "FX601",
                f"{index} names files that are not there: {', '.join(missing)}",
                hint="the download is incomplete",
            )
        return paths
    paths = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if not paths:
        pickled = [p.name for p in sorted(folder.glob("*.bin"))]
        raise ModelError(
            "FX601",
            f"{folder} holds no *.safetensors file",
            hint=f"convert {pickled[0]}: model.save_pretrained(folder) of transformers"
            if pickled
            else "a Hugging Face folder holds config.json, *.safetensors and tokenizer.json",
        )
    return paths


def _read_tokenizer(path: Path) -> Any:
    if not path.exists():
        raise ModelError(
            "FX605",
            f"there is no tokenizer: {path} is missing",
            hint="download tokenizer.json, or save it with tokenizer.save_pretrained(folder) of transformers",
        )
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelError("FX605", f"cannot read {path}: {error}") from error
