"""FlexLLM's prefill of a model: how much at once, program and data, for the graph of `models.flexllm`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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
from .cache_layout import CacheLayout
from .design_checks import ATTENTION, MLP, check_model, check_parameters, is_power
from .model import Model
from .operators import Operators

_graph: Any = graph
_arrays: Any = arrays
_lanes: Any = lanes


@dataclass(frozen=True)
class Prefill:
    """How much FlexLLM's prefill does at once; the defaults are its U280 design.

    Attributes:
        token: tokens in a block.
        attention: output channels per cycle of q, k, v and o, from words of `attention_word` rows.
        mlp: the same of gate, up and down, from each of `mlp_ports` ports.
        key: keys at once.
        value: elements of a value at once.
    """

    token: int = 8
    attention: int = 24
    attention_word: int = 32
    mlp: int = 32
    mlp_word: int = 32
    mlp_ports: int = 3
    key: int = 16
    value: int = 16

    def __post_init__(self) -> None:
        check_parameters({
            f"attention_word is {self.attention_word}: at least attention, {self.attention}":
                self.attention_word >= self.attention,
            f"mlp_word is {self.mlp_word}: at least mlp, {self.mlp}": self.mlp_word >= self.mlp,
        })  # fmt: skip

    def check(self, model: Model) -> None:
        """Refuse a model that these kernels do not compute.

        Raises:
            UsageError: FX703, every way in which the model is another one.
        """
        c = model.config
        more = {"an MLP whose width is a power of two": is_power(c.intermediate_size)}
        more[f"heads whose size is a multiple of {self.value}"] = c.head_dim % self.value == 0
        check_model(model, more)

    @property
    def layout(self) -> CacheLayout:
        """Of the KV cache."""
        return CacheLayout(self.key, self.value)

    def operators(self, model: Model) -> Operators:
        """The operators of a model's recipe with arrays of multipliers and vectors of tokens."""
        known: Any = model.operators
        one = _array(1, self.attention, self.attention_word)
        several = _array(self.mlp_ports, self.mlp, self.mlp_word)
        sites = {site: _vectors(getattr(known, site)) for site in ("attn", "out", "mlp")}
        down = replace(known.down, inner=_vectors(known.down.inner))
        weights = dict.fromkeys(ATTENTION, one) | dict.fromkeys(MLP, several)
        return replace(known, **sites, down=down, **weights, norm=_lanes.rms_norm_lanes)

    def program(self, model: Model) -> ir.Program:
        """The unscheduled program: ``prefill`` on top."""
        sizes = {k: v for k, v in model._sizes().items() if k != "M"}  # pyright: ignore[reportPrivateUsage]
        own = {"R": self.operators(model), "T": self.token, "KP": self.key, "VP": self.value}
        return lower_all([(_graph.prefill, sizes | own)])


def prefill_parts(
    model: Model, size: Prefill, parts: Callable[[str], Iterable[NDArray[Any]]]
) -> Callable[[str], Iterator[NDArray[Any]]]:
    """The arguments of FlexLLM's prefill piece by piece along their first axis.

    Args:
        parts: gives those that lie as in any other design, and the weights.
    """
    operators: Any = size.operators(model)

    def part(name: str) -> Iterator[NDArray[Any]]:
        kind, _, port = name.partition("_codes_")
        if not port.isdigit():
            yield from parts(name)
            return
        for piece in parts(f"{kind}_codes"):
            yield tiles(piece, getattr(operators, kind))[int(port)]

    return part


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


def _array(ports: int, channels: int, word: int) -> Any:
    return _arrays.Array(Int(4), _arrays.linear_ports, _arrays.Tiles, ports, channels, word)


def _vectors(site: Activation) -> Activation:
    return replace(site, quantize=_lanes.quantize_lanes)


__all__ = ["Prefill", "prefill_parts", "tiles"]
