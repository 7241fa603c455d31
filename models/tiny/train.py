"""Train the small Llama checkpoint in this folder, from text that ships with CPython.

    python models/tiny/train.py

Needs torch, numpy, tokenizers and safetensors; one CPU thread, no accelerator, no download.
It writes the files next to this script, or to --out. The default number of steps takes somewhat
over twenty minutes on one core of a server processor. measure.py has the model and the measures.

Text: the language reference topics of ``pydoc`` and the docstrings of the standard library of the
Python that runs this script, deduplicated by paragraph. Both are part of CPython and come under
the Python Software Foundation License Version 2. About an eighth of the ``pydoc`` topics is kept
out of the training text and written to ``heldout.txt``.

For the last part of the training (``QAT_SHARE``) the sequences are twice as long and every second
step sees its matrices rounded to 4 bits per output channel (straight-through gradient), so that
the checkpoint stays useful both as it is and with integer weights.

A run is decided by the seed, the Python version (which decides the text), and the library versions.
"""

import argparse
import ast
import hashlib
import inspect
import json
import math
import os
import platform
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
import torch.nn.functional as F
from measure import (
    CONTEXT,
    EPS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    THETA,
    Weights,
    best_ratio,
    fake_quant,
    forward,
    linears,
    measure,
    perplexity,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOT = "<|begin_of_text|>", "<|end_of_text|>"
VOCAB, FFN = 2048, 512
BATCH_TOKENS, LEARNING_RATE, WARMUP, WEIGHT_DECAY = 2048, 4e-3, 100, 0.1
DROPOUT, QAT_SHARE = 0.1, 0.3
SKIPPED = {"test", "tests", "idlelib", "site-packages", "lib2to3", "idle_test", "__pycache__"}


# ---- text ----------------------------------------------------------------------------------


def sources() -> Iterator[tuple[str, str]]:
    """(kind, text) of every topic and of every standard library module's docstrings, in order."""
    for name in sorted(topics):
        yield "topic", topics[name]
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(stdlib.rglob("*.py")):
        if SKIPPED & set(path.relative_to(stdlib).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docs = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        yield "docstring", "\n\n".join(inspect.cleandoc(doc) for doc in docs if doc)


def collect() -> tuple[list[str], list[str]]:
    """Training and held-out documents: runs of about a thousand characters of paragraphs, of which
    none (by its words) occurs twice, so that no held-out paragraph is in the training text."""
    seen: set[str] = set()
    train: list[str] = []
    heldout: list[str] = []
    for kind, text in sources():
        document: list[str] = []
        paragraphs = text.replace("\r", "").split("\n\n")
        for i, paragraph in enumerate(paragraphs):
            paragraph = "\n".join(line.rstrip() for line in paragraph.strip("\n").split("\n"))
            key = " ".join(paragraph.split())
            if len(key) >= 20 and key not in seen:
                seen.add(key)
                document.append(paragraph)
            if document and (i + 1 == len(paragraphs) or sum(map(len, document)) > 1000):
                joined = "\n\n".join(document)
                chosen = kind == "topic" and hashlib.sha256(joined.encode()).digest()[0] < 32
                (heldout if chosen else train).append(joined)
                document = []
    return train, heldout


def train_tokenizer(documents: list[str]) -> Tokenizer:
    """A byte-level BPE (no unknown token exists) that puts BOS in front of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        documents,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=[BOS, EOT],
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def rows(documents: list[list[int]], steps: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Batches [sequences, length + 1] of shuffled documents, each row beginning with BOS."""
    stream: list[int] = []
    for step in range(steps):
        length = CONTEXT if step < steps * (1 - QAT_SHARE) else 2 * CONTEXT
        while len(stream) < BATCH_TOKENS:
            for i in rng.permutation(len(documents)):
                stream += [0, *documents[i], 1]
        batch = torch.tensor(stream[:BATCH_TOKENS]).view(-1, length)
        del stream[:BATCH_TOKENS]
        yield F.pad(batch, (1, 0), value=0)


# ---- training ------------------------------------------------------------------------------


def initial_weights() -> Weights:
    """Parameters under the names of Hugging Face's LlamaForCausalLM (the head is the embedding)."""
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes = {
        "self_attn.q_proj": (q, HIDDEN),
        "self_attn.k_proj": (kv, HIDDEN),
        "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, q),
        "mlp.gate_proj": (FFN, HIDDEN),
        "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
    }
    w = {"model.embed_tokens.weight": torch.randn(VOCAB, HIDDEN) * 0.02}
    for i in range(LAYERS):
        for name, shape in shapes.items():
            last = name.endswith(("o_proj", "down_proj"))
            std = 0.04 / (math.sqrt(2 * LAYERS) if last else 1)
            w[f"model.layers.{i}.{name}.weight"] = torch.randn(shape) * std
        for name in ("input_layernorm", "post_attention_layernorm"):
            w[f"model.layers.{i}.{name}.weight"] = torch.ones(HIDDEN)
    w["model.norm.weight"] = torch.ones(HIDDEN)
    return w


def train(documents: list[list[int]], steps: int, seed: int, ids: list[int]) -> tuple[Weights, float]:
    """Trained weights and the mean loss of the last hundred steps that ran without rounding."""
    torch.manual_seed(seed)
    w = {name: p.requires_grad_() for name, p in initial_weights().items()}
    groups = [
        {"params": [p for p in w.values() if p.dim() == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in w.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    ratios: Weights = {}
    losses: list[float] = []
    start = time.time()
    for step, batch in enumerate(rows(documents, steps, np.random.default_rng(seed))):
        rate = min(1.0, (step + 1) / WARMUP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        late = step - round(steps * (1 - QAT_SHARE))
        rounding = late >= 0 and late % 2 == 0
        used = w
        if rounding:
            if late % 50 == 0:
                ratios = {n: best_ratio(p.detach(), 4) for n, p in linears(w).items()}
            used = w | {
                n: p + (fake_quant(p.detach(), 4, ratios[n]) - p.detach()) for n, p in linears(w).items()
            }
        target = batch[:, 1:].masked_fill(batch[:, 1:] == 0, -100)
        logits = forward(used, batch[:, :-1], dropout=DROPOUT)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if not rounding:
            losses.append(loss.item())
        if step % 100 == 0:
            print(
                f"{step:6d} {time.time() - start:7.1f} s  train loss {np.mean(losses[-100:]):.4f}"
                + (f"  held-out {perplexity(w, ids):.2f}" if step % 500 == 0 else ""),
                flush=True,
            )
    return {n: p.detach() for n, p in w.items()}, float(np.mean(losses[-100:]))


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small checkpoint.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    start = time.time()
    documents, kept_out = collect()
    tokenizer = train_tokenizer(documents)
    tokens = [e.ids for e in tokenizer.encode_batch(documents, add_special_tokens=False)]
    ids = tokenizer.encode("\n\n".join(kept_out), add_special_tokens=False).ids
    counts = np.bincount(np.concatenate(tokens), minlength=VOCAB) + 1.0
    unigram = math.exp(-np.log(counts / counts.sum())[ids].mean())
    w, loss = train(tokens, args.steps, args.seed, ids)
    seconds = round(time.time() - start)

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "heldout.txt").write_text("\n\n".join(kept_out), encoding="utf-8")
    tokenizer.save(str(args.out / "tokenizer.json"))
    dump(
        args.out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOT,
            "model_max_length": 2 * CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    dump(args.out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    dump(
        args.out / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCAB,
            "hidden_size": HIDDEN,
            "intermediate_size": FFN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": 2 * CONTEXT,
            "rms_norm_eps": EPS,
            "rope_theta": THETA,
            "rope_scaling": None,
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "pretraining_tp": 1,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "use_cache": True,
            "torch_dtype": "bfloat16",
        },
    )
    save_file(
        {n: p.to(torch.bfloat16) for n, p in w.items()},
        args.out / "model.safetensors",
        metadata={"format": "pt"},
    )
    dump(
        args.out / "train.json",
        {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "seed": args.seed,
            "parameters": sum(p.numel() for p in w.values()),
            "train_text_bytes": sum(len(d.encode()) for d in documents),
            "train_text_tokens": sum(map(len, tokens)),
            "steps": args.steps,
            "tokens_per_step": BATCH_TOKENS,
            "seconds": seconds,
            "final_train_loss": round(loss, 4),
            "heldout_bytes": len("\n\n".join(kept_out).encode()),
            "heldout_tokens": len(ids),
            "context": CONTEXT,
            "stride": CONTEXT - 1,
            "unigram_perplexity": round(unigram, 3),
            "heldout_perplexity": {n: round(p, 4) for n, p in measure(args.out).items()},
        },
    )


if __name__ == "__main__":
    main()
