"""The held-out perplexity of the checkpoint in this folder, as it is and with integer weights.

    python models/tiny/measure.py

Needs torch, tokenizers and safetensors. The integer formats are simulated: the numbers are
rounded to what the format can hold and the arithmetic stays in float.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 192, 4, 6, 2, 32
EPS, THETA, CONTEXT = 1e-5, 10000.0, 256
Weights = dict[str, Tensor]


def forward(w: Weights, tokens: Tensor, int8_activations: bool = False, dropout: float = 0.0) -> Tensor:
    """Logits [sequence, position, vocabulary]. The head is lm_head.weight if there, else tied."""
    batch, length = tokens.shape
    inverse = THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = torch.arange(length)[:, None] * inverse.repeat(2)
    cos, sin = angles.cos(), angles.sin()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (HIDDEN,), w[name + ".weight"], EPS)

    def linear(x: Tensor, name: str) -> Tensor:
        if int8_activations:
            scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
            x = (x / scale).round() * scale
        return F.linear(x, w[name + ".weight"])

    def heads(x: Tensor, rope: bool) -> Tensor:
        x = x.view(batch, length, -1, HEAD_DIM).transpose(1, 2)
        if rope:
            first, second = x.chunk(2, -1)
            x = x * cos + torch.cat((-second, first), -1) * sin
        return x.repeat_interleave(HEADS // x.shape[1], dim=1)

    x = F.dropout(F.embedding(tokens, w["model.embed_tokens.weight"]), dropout)
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        h = norm(x, at + "input_layernorm")
        q, k, v = (heads(linear(h, f"{at}self_attn.{c}_proj"), c != "v") for c in "qkv")
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.dropout(linear(h.transpose(1, 2).flatten(2), at + "self_attn.o_proj"), dropout)
        h = norm(x, at + "post_attention_layernorm")
        h = F.silu(linear(h, at + "mlp.gate_proj")) * linear(h, at + "mlp.up_proj")
        x = x + F.dropout(linear(h, at + "mlp.down_proj"), dropout)
    head = "lm_head" if "lm_head.weight" in w else "model.embed_tokens"
    return linear(norm(x, "model.norm"), head)


def fake_quant(w: Tensor, bits: int, ratio: Tensor | float) -> Tensor:
    """Round to symmetric integers per output channel, the range being ratio * max |w|."""
    top = 2 ** (bits - 1) - 1
    scale = (w.abs().amax(1, keepdim=True) * ratio).clamp(min=1e-8) / top
    return (w / scale).round().clamp(-top, top) * scale


def best_ratio(w: Tensor, bits: int) -> Tensor:
    """The clipping ratio with the least squared error, per output channel."""
    ratios = torch.linspace(1.0, 0.4, 25)
    errors = torch.stack([(fake_quant(w, bits, float(r)) - w).square().sum(1) for r in ratios])
    return ratios[errors.argmin(0)][:, None]


def linears(w: Weights) -> Weights:
    """The matrices that multiply activations, the tied head as a matrix of its own."""
    found = {name: p for name, p in w.items() if name.endswith("proj.weight")}
    return found | {"lm_head.weight": w["model.embed_tokens.weight"]}


@torch.no_grad()
def quantised(w: Weights, bits: int) -> Weights:
    return w | {n: fake_quant(p, bits, best_ratio(p, bits)) for n, p in linears(w).items()}


@torch.no_grad()
def perplexity(w: Weights, ids: list[int], int8_activations: bool = False) -> float:
    """Every token once: windows of BOS and CONTEXT - 1 tokens, without overlap."""
    total, stride = 0.0, CONTEXT - 1
    for at in range(0, len(ids), stride):
        target = torch.tensor(ids[at : at + stride])
        logits = forward(w, F.pad(target, (1, 0), value=0)[None, :-1], int8_activations)
        total += F.cross_entropy(logits[0], target, reduction="sum").item()
    return math.exp(total / len(ids))


def measure(folder: Path) -> dict[str, float]:
    """Held-out perplexity of the stored checkpoint, as it is and with integer weights."""
    w = {n: p.float() for n, p in load_file(folder / "model.safetensors").items()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = (folder / "heldout.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    found = {"float": perplexity(w, ids)}
    for bits in (8, 4):
        rounded = quantised(w, bits)
        found[f"int{bits}_weights"] = perplexity(rounded, ids)
        found[f"int{bits}_weights_int8_activations"] = perplexity(rounded, ids, True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the small checkpoint.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(args.folder), indent=2))


if __name__ == "__main__":
    main()
