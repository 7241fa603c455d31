"""The rotated, fake-quantized network in torch: what learned rotations are judged by."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..formats import WeightFormat
from ..model import FloatModel, Shape
from ..passes import Gptq
from ..recipes import Recipe, get_recipe
from .fake import fake_activation, fake_heads, fake_weight
from .hadamard import Online, hadamard_base, hadamard_matrix

_LINEARS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}


Matrices = Mapping[str, NDArray[np.float64] | None]
"""``r1`` [E, E] and ``r2`` [L, D, D], or None."""


@dataclass(frozen=True)
class Turn:
    """Rotations as float32 tensors that gradients may flow to."""

    r1: Tensor | None
    r2: Tensor | None


@contextmanager
def single_thread() -> Generator[None]:
    """One thread for torch: sums in one order, and no threads that wait for each other on busy machines."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _turn(rotations: Matrices, learned: tuple[str, ...]) -> Turn:
    made = {
        name: None if r is None else torch.as_tensor(r.astype(np.float32)).requires_grad_(name in learned)
        for name, r in rotations.items()
    }
    return Turn(made["r1"], made["r2"])


def transform(x: Tensor) -> Tensor:
    """`hadamard_transform` over the last axis, up to the order of sums."""
    n = x.shape[-1]
    m, k = hadamard_base(n)
    blocks = x.reshape(-1, m, 2**k)
    for stage in range(k):
        low, high = blocks.reshape(-1, 2 ** (k - stage - 1), 2, 2**stage).unbind(2)
        blocks = torch.stack((low + high, low - high), 2)
    blocks = blocks.reshape(-1, m, 2**k)
    if m > 1:
        signs = torch.as_tensor(hadamard_matrix(m).astype(np.float32))
        blocks = signs @ blocks
    return (blocks * n**-0.5).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class RotatedLlama:
    """A Llama with folded norms; the weights are kept once, in float32.

    Activations and keys and values are rounded as the recipe says, in the rotated basis. Weights too, to
    nearest, unless the recipe has `Gptq`: it corrects what rounding does, so weights stay exact here
    (SpinQuant's W16).
    """

    config: Shape
    recipe: Recipe
    online: Online
    weights: Mapping[str, Tensor]
    rope: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, model: FloatModel, recipe: Recipe, online: Online, positions: int) -> RotatedLlama:
        """The network of a model, for sequences of up to `positions` tokens."""
        names = {"embed": "model.embed_tokens.weight", "w_head": "lm_head.weight"}
        for layer in range(model.config.num_hidden_layers):
            names |= {f"{layer}.{k}": f"model.layers.{layer}.{v}.weight" for k, v in _LINEARS.items()}
        weights = {key: torch.as_tensor(model.tensors[name]) for key, name in names.items()}
        if online.r4:
            for layer in range(model.config.num_hidden_layers):
                weights[f"{layer}.w_down"] = transform(weights[f"{layer}.w_down"])
        cos, sin = model.rope_tables(positions)
        return cls(model.config, recipe, online, weights, (torch.as_tensor(cos), torch.as_tensor(sin)))

    def evaluate(self, tokens: NDArray[np.int64], rotations: Matrices) -> float:
        """The loss of token ids [B, T] under rotations."""
        with torch.no_grad():
            return self.loss(torch.as_tensor(tokens), _turn(rotations, ())).item()

    def gradients(
        self, tokens: NDArray[np.int64], rotations: Matrices, learned: tuple[str, ...]
    ) -> tuple[float, dict[str, NDArray[np.float64]]]:
        """The loss, and its gradients by the elements of the learned rotations."""
        turn = _turn(rotations, learned)
        loss = self.loss(torch.as_tensor(tokens), turn)
        found = torch.autograd.grad(loss, [getattr(turn, name) for name in learned])
        return loss.item(), {n: g.numpy().astype(np.float64) for n, g in zip(learned, found, strict=True)}

    def loss(self, tokens: Tensor, turn: Turn) -> Tensor:
        """Mean cross-entropy (nats) with the float model's own predictions; tokens int64 [B, T].

        SpinQuant takes the next token of the text as the target. The float model's distribution differs from
        it by what does not depend on rotations, and by a noise that would drown their effect on small data.
        """
        with torch.no_grad():
            exact = replace(self, recipe=get_recipe("none"))
            wanted = exact.logits(tokens, Turn(None, None)).softmax(-1)
        return functional.cross_entropy(self.logits(tokens, turn).flatten(0, 1), wanted.flatten(0, 1))

    def logits(self, tokens: Tensor, turn: Turn) -> Tensor:
        """float32 [B, T, V]."""
        x = self.weights["embed"][tokens]
        x = x if turn.r1 is None else x @ turn.r1
        for layer in range(self.config.num_hidden_layers):
            x = x + self._attention(self._norm(x), layer, turn)
            x = x + self._mlp(self._norm(x), layer, turn)
        return self._linear(fake_activation(self._norm(x), self.recipe.activation_of("head")), "w_head", turn)

    def _norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)

    def _round(self, x: Tensor) -> Tensor:
        return fake_activation(x, self.recipe.activation)

    def _attention(self, x: Tensor, layer: int, turn: Turn) -> Tensor:
        a, group = self._round(x), self.config.num_attention_heads // self.config.num_key_value_heads
        q, k, v = (self._heads(self._linear(a, f"{layer}.{w}", turn)) for w in ("wq", "wk", "wv"))
        q = fake_heads(self._position(q), self.recipe.query)
        k, v = (fake_heads(h, self.recipe.kv) for h in (self._position(k), v))
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(*x.shape[:2], -1)
        mixed = self._round(transform(mixed) if self.online.out else mixed)
        return self._linear(mixed, f"{layer}.wo", turn)

    def _mlp(self, x: Tensor, layer: int, turn: Turn) -> Tensor:
        a = self._round(x)
        gate, up = (self._linear(a, f"{layer}.{w}", turn) for w in ("w_gate", "w_up"))
        hidden = functional.silu(gate) * up
        hidden = self._round(transform(hidden) if self.online.r4 else hidden)
        return self._linear(hidden, f"{layer}.w_down", turn)

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, heads * D] to [B, heads, T, D]."""
        return x.reshape(*x.shape[:2], -1, self.config.head_dim).transpose(1, 2)

    def _position(self, x: Tensor) -> Tensor:
        """Rotary embedding of [B, heads, T, D], then R3."""
        cos, sin = (table[: x.shape[2]] for table in self.rope)
        low, high = x.chunk(2, -1)
        x = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
        return transform(x) if self.online.r3 else x

    def _linear(self, a: Tensor, key: str, turn: Turn) -> Tensor:
        weight = self.rotated(key, turn)
        if self.recipe.find(Gptq) is None:
            weight = fake_weight(weight, self._format(key))
        return functional.linear(a, weight)

    def rotated(self, key: str, turn: Turn) -> Tensor:
        """A weight with its rotations absorbed, as `quant.rotate` does it."""
        weight, (layer, _, kind) = self.weights[key], key.rpartition(".")
        if turn.r2 is not None and kind == "wo":
            heads = weight.reshape(len(weight), -1, self.config.head_dim)
            weight = (heads @ turn.r2[int(layer)]).reshape(weight.shape)
        if turn.r2 is not None and kind == "wv":
            heads = weight.reshape(-1, self.config.head_dim, weight.shape[1])
            weight = (turn.r2[int(layer)].T @ heads).reshape(weight.shape)
        if self.online.out and kind == "wo":
            weight = transform(weight)
        if turn.r1 is None:
            return weight
        return turn.r1.T @ weight if kind in ("wo", "w_down") else weight @ turn.r1

    def _format(self, key: str) -> WeightFormat | None:
        layer, _, kind = key.rpartition(".")
        fmt = self.recipe.weight_of(kind)
        bits = self.recipe.layer_bits.get(int(layer)) if layer else None
        return fmt if fmt is None or bits is None else replace(fmt, bits=bits)
