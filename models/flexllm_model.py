"""A model's data and program for the graph of `models.flexllm`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.customize import lower_all
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import Int
from flexllm_allo.kernels import flexllm as arrays
from flexllm_allo.kernels import lanes
from flexllm_allo.kernels.quantize import Activation

from . import flexllm as graph
from . import flexllm_decode as decode_graph
from .arrays import constant_arrays
from .model import Model
from .operators import Operators

ATTENTION = ("wq", "wk", "wv", "wo")
MLP = ("w_gate", "w_up", "w_down")
_graph: Any = graph
_decode: Any = decode_graph
_arrays: Any = arrays
_lanes: Any = lanes


@dataclass(frozen=True)
class Prefill:
    """How much FlexLLM's prefill does at once; the defaults are its U280 design.

    Attributes:
        token: tokens in a block.
        attention: output channels per cycle of q, k, v and o, from words of `attention_word` rows.
        mlp: the same of gate, up and down, from each of three ports.
        key: keys at once.
        value: elements of a value at once.
    """

    token: int = 8
    attention: int = 24
    attention_word: int = 32
    mlp: int = 32
    mlp_word: int = 32
    key: int = 16
    value: int = 16

    def operators(self, model: Model) -> Operators:
        """The operators of a model's recipe with arrays of multipliers and vectors of tokens."""
        known: Any = model.operators
        one = _arrays.Array(Int(4), _arrays.linear_1, _arrays.OnePort, 1, self.attention, self.attention_word)
        three = _arrays.Array(Int(4), _arrays.linear_3, _arrays.ThreePorts, 3, self.mlp, self.mlp_word)
        sites = {site: _vectors(getattr(known, site)) for site in ("attn", "out", "mlp")}
        down = replace(known.down, inner=_vectors(known.down.inner))
        weights = dict.fromkeys(ATTENTION, one) | dict.fromkeys(MLP, three)
        return replace(known, **sites, down=down, **weights, norm=_lanes.rms_norm_lanes)

    def program(self, model: Model) -> ir.Program:
        """The unscheduled program: ``prefill`` on top."""
        sizes = {k: v for k, v in model._sizes().items() if k != "M"}  # pyright: ignore[reportPrivateUsage]
        own = {"R": self.operators(model), "T": self.token, "KP": self.key, "VP": self.value}
        return lower_all([(_graph.prefill, sizes | own)])

    def constants(self, model: Model) -> dict[str, Any]:
        """What never changes between runs, by parameter name."""
        found = constant_arrays(model.weights)
        operators: Any = self.operators(model)
        for kind in (*ATTENTION, *MLP):
            array = getattr(operators, kind)
            for port, codes in enumerate(tiles(found.pop(f"{kind}_codes"), array)):
                found[f"{kind}_codes_{port}"] = codes
        return found


@dataclass(frozen=True)
class Decode:
    """How much FlexLLM's decode does at once; the defaults are its U280 design.

    Attributes:
        channels: output channels per cycle and port; there are sixteen ports.
        block: input channels that are loaded at once, and lanes of the Hadamard transform.
        vector: elements at once in other operators.
        key: keys at once, in each of eight heads.
        value: elements of a value at once.
    """

    channels: int = 64
    block: int = 16
    vector: int = 8
    key: int = 32
    value: int = 32

    def operators(self, model: Model) -> DecodeOperators:
        """The operators of a model's recipe with one engine for all linear layers."""
        known: Any = model.operators
        engine = _arrays.Array(
            Int(4), _arrays.linear_16, _arrays.SixteenPorts, 16, self.channels, self.channels
        )
        values: dict[str, Any] = {f.name: getattr(known, f.name) for f in fields(known)}
        weights: dict[str, Any] = dict.fromkeys(("wq", "wo", *MLP, "w_head"), engine)
        return DecodeOperators(**(values | weights), wkv=engine)

    def program(self, model: Model) -> ir.Program:
        """The unscheduled program: ``decode`` on top."""
        sizes = {k: v for k, v in model._sizes().items() if k != "M"}  # pyright: ignore[reportPrivateUsage]
        own: dict[str, Any] = {"R": self.operators(model), "TB": self.vector, "BP": self.block}
        own |= {"KP": self.key, "VP": self.value, "H": model.config.num_attention_heads}
        return lower_all([(_decode.decode, sizes | own)])

    def constants(self, model: Model) -> dict[str, Any]:
        """What never changes between runs, by parameter name."""
        found = constant_arrays(model.weights)
        operators: Any = self.operators(model)
        for part in ("codes", "terms"):
            found[f"wkv_{part}"] = np.concatenate([found.pop(f"w{k}_{part}") for k in "kv"], axis=1)
        for kind in ("wq", "wkv", "wo", *MLP):
            for port, codes in enumerate(tiles(found.pop(f"{kind}_codes"), getattr(operators, kind))):
                found[f"{kind}_codes_{port}"] = codes
        for port, codes in enumerate(tiles(found.pop("w_head_codes")[None], operators.w_head)):
            found[f"w_head_codes_{port}"] = codes[0]
        return found


@dataclass(frozen=True)
class DecodeOperators(Operators):
    """`Operators` with a weight for keys and values together."""

    wkv: Any = None


def tiles(codes: NDArray[Any], array: Any) -> list[NDArray[Any]]:
    """Weights [L, N, K] as each port of an array reads them: [L, array.rows(N), K], padding is zero."""
    layers, n, k = codes.shape
    ports, channels, word = array.ports, array.channels, array.word
    count = -(-n // (ports * channels))
    padded = np.zeros((layers, count * ports * channels, k), codes.dtype)
    padded[:, :n] = codes
    parts = padded.reshape(layers, count, channels, ports, k)
    out = np.zeros((ports, layers, count, word, k), codes.dtype)
    out[:, :, :, :channels] = parts.transpose(3, 0, 1, 2, 4)
    return [part.reshape(layers, count * word, k) for part in out]


def _vectors(site: Activation) -> Activation:
    return replace(site, quantize=_lanes.quantize_lanes)


__all__ = ["Decode", "Prefill", "tiles"]
