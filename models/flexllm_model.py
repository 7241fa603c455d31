"""A model's data and program for the graph of `models.flexllm`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.customize import lower_all
from flexllm_allo.errors import UsageError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import Int
from flexllm_allo.kernels import attention, flexllm_heads, hadamard, heads, lanes, linear, norm, quantize
from flexllm_allo.kernels import flexllm as arrays
from flexllm_allo.kernels.blocks import SUMS
from flexllm_allo.kernels.quantize import Activation

from . import flexllm as graph
from . import flexllm_decode as decode_graph
from .cache_layout import CacheLayout
from .flexllm_engine import Plan, plan
from .model import Model
from .operators import Operators

ATTENTION = ("wq", "wk", "wv", "wo")
MLP = ("w_gate", "w_up", "w_down")
_graph: Any = graph
_decode: Any = decode_graph
_arrays: Any = arrays
_lanes: Any = lanes
_packs: Any = flexllm_heads
_heads: Any = heads
_hadamard: Any = hadamard
_attention: Any = attention
_linear: Any = linear
_norm: Any = norm
_quantize: Any = quantize


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
        _check_parameters({
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
        more = {"an MLP whose width is a power of two": _is_power(c.intermediate_size)}
        more[f"heads whose size is a multiple of {self.value}"] = c.head_dim % self.value == 0
        _check(model, more)

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


@dataclass(frozen=True)
class Decode:
    """How much FlexLLM's decode does at once; the defaults are its U280 design.

    Attributes:
        ports: of weights.
        channels: output channels per cycle and port.
        group: output channels whose terms are read at once.
        split: ports that share a row where a layer has few rows, at most: 1 or 2.
        block: input channels that are loaded at once, and lanes of the Hadamard transform.
        vector: elements at once in other operators.
        key: keys at once, in each head, as FlexLLM has them (and its Hadamard transform, for sizes that are a
            power of two); 0 for all queries of a head with one key at a time.
        value: elements of a value at once, in FlexLLM's attention.
        head_parallel: KV heads side by side in FlexLLM's attention, each with memories of its own; 0 for all.
        key_ports: memory ports of a head's keys: 1 or 2, where a port does not deliver a key in a cycle.
        prefetch: values that may wait on the chip for their probabilities; 0 for all of the context.
    """

    ports: int = 16
    channels: int = 64
    group: int = 1
    split: int = 1
    block: int = 16
    vector: int = 8
    key: int = 32
    value: int = 32
    head_parallel: int = 0
    key_ports: int = 1
    prefetch: int = 0

    def __post_init__(self) -> None:
        shared = self.split == 1 or (self.split == 2 and self.ports % 2 == self.channels % 2 == 0)
        _check_parameters({
            f"group is {self.group}: it divides ports, {self.ports}": self.ports % self.group == 0,
            f"split is {self.split}: 1, or 2 with even ports and channels": shared,
            f"key_ports is {self.key_ports}: 1 with packs of keys": self.key_ports == 1 or not self.key,
        })  # fmt: skip

    def check(self, model: Model) -> None:
        """Refuse a model that the engine does not compute.

        Raises:
            UsageError: FX703, every way in which the model is another one.
        """
        c, block, squares = model.config, self.block, self.vector * SUMS
        heads = c.num_attention_heads * c.head_dim
        more = {
            f"an MLP whose width is a multiple of {block}": c.intermediate_size % block == 0,
            f"a hidden size that is a multiple of {block}": c.hidden_size % block == 0,
            f"a hidden size that is a multiple of {squares}": c.hidden_size % squares == 0,
            f"attention whose width is a multiple of {block}": heads % block == heads % self.vector == 0,
            f"a vocabulary whose size is a multiple of {block}": c.vocab_size % block == 0,
        }
        if self.key:
            more |= {
                "an MLP whose width is a power of two": _is_power(c.intermediate_size),
                f"heads whose size is a multiple of {self.value}": c.head_dim % self.value == 0,
            }
        if n := self.head_parallel:
            more |= {f"KV heads of which {n} can be side by side": c.num_key_value_heads % n == 0}
        _check(model, more)

    def operators(self, model: Model) -> DecodeOperators:
        """The operators of a model's recipe, on the engine."""
        known: Any = model.operators
        values: dict[str, Any] = {f.name: getattr(known, f.name) for f in fields(known)}
        own: dict[str, Any] = {
            "heads": _heads.attend_heads, "HeadCache": _heads.HeadCache, "hadamard": _hadamard.hadamard
        }  # fmt: skip
        if self.key:  # FlexLLM's
            own |= {"heads": _packs.attend_packs, "HeadCache": _packs.PackedCache}
            own |= {"hadamard": _lanes.hadamard_lanes}
        own |= {
            "key_ports": self.key_ports,
            "prefetch": self.prefetch or model.max_seq_len,
            "plan": self.plan(model),
            "weight": Int(4),
            "key": self.key,
            "value": self.value,
            "turns": self.layout(model).turns,
        }
        return DecodeOperators(**values, **own)

    def program(self, model: Model) -> ir.Program:
        """The unscheduled program: ``decode`` on top."""
        sizes = {k: v for k, v in model._sizes().items() if k in "EVLCSDP"}  # pyright: ignore[reportPrivateUsage]
        own: dict[str, Any] = {"R": self.operators(model), "TB": self.vector, "BP": self.block}
        return lower_all([(_decode.decode, sizes | own | {"H": model.config.num_attention_heads})])

    def side(self, model: Model) -> int:
        """KV heads side by side."""
        return self.head_parallel or model.config.num_key_value_heads

    def layout(self, model: Model) -> CacheLayout:
        """Of the KV cache."""
        turns = model.config.num_key_value_heads // self.side(model)
        return CacheLayout(self.key, self.value, by_head=True, turns=turns, key_ports=self.key_ports)

    def plan(self, model: Model) -> Plan:
        """Where the weights of a model are in the ports."""
        return plan(model, self.channels, self.ports, self.group, self.split)


@dataclass(frozen=True)
class DecodeOperators(Operators):
    """`Operators` of a decode on the engine.

    Attributes:
        plan: of the engine's memories.
        weight: its type.
        heads: attention of one token, from codes on.
        HeadCache: the cache it takes.
        key, value: neighbours in a word of that cache.
        turns: KV heads in a memory of it.
        key_ports: memories of a head's keys.
        prefetch: values that wait for their probabilities on the chip.
        hadamard: the transform of one row.
    """

    plan: Any = None
    weight: Any = None
    heads: Any = None
    HeadCache: Any = None
    key: int = 0
    value: int = 0
    turns: int = 1
    key_ports: int = 1
    prefetch: int = 64
    hadamard: Any = None


def _check(model: Model, more: dict[str, bool]) -> None:
    """Refuse what FlexLLM's kernels do not compute; `more` as a stage asks for."""
    known = model.operators
    weights: list[Any] = [getattr(known, kind) for kind in (*ATTENTION, *MLP, "w_head")]
    inputs: list[Any] = [known.attn, known.out, known.mlp, known.down.inner, known.head]
    plain = known.rotary and known.gated and not known.qk_norm and known.norm is _norm.rms_norm
    wanted = {
        "weights of 4 bits with a scale per output channel": all(
            w.dtype == Int(4) and w.linear is _linear.linear for w in weights
        ),
        "inputs with a minimum (asymmetric, dynamic), that of the down projection rotated": all(
            site is not None and site.quantize is _quantize.quantize_minimum for site in inputs
        ),
        "static scales in attention": known.attend is _attention.attend_static and known.window == 0,
        "rotary positions, RMS norms, a gated MLP, no norm of heads": plain,
    }
    missing = [what for what, there in (wanted | more).items() if not there]
    if missing:
        listing = "".join(f"\n  - {what}" for what in missing)
        sizes = "other parameters of the stage in the preset; flexllm tune finds some"
        hint = sizes if all(wanted.values()) else "recipe w4a4kv8 makes one of a Llama"
        raise UsageError("FX703", f"FlexLLM's kernels take models that have{listing}", hint=hint)


def _check_parameters(rules: dict[str, bool]) -> None:
    """Refuse a size that no design has.

    Raises:
        UsageError: FX703, the first rule that does not hold.
    """
    broken = next((rule for rule, holds in rules.items() if not holds), None)
    if broken is not None:
        raise UsageError("FX703", broken, hint="change these parameters of the stage")


def _is_power(size: int) -> bool:
    return size & (size - 1) == 0


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


__all__ = ["Decode", "Prefill", "prefill_parts", "tiles"]
