"""Decode of a model on an engine: how much at once, and its program, for the graph of `models.engine`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from flexllm_allo.customize import lower_all
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import Int
from flexllm_allo.kernels import flexllm_heads, hadamard, heads, lanes
from flexllm_allo.kernels.blocks import SUMS

from . import engine as graph
from .cache_layout import CacheLayout
from .design_checks import check_model, check_parameters, is_power
from .engine_memory import Plan, plan
from .model import Model
from .operators import Operators

_graph: Any = graph
_lanes: Any = lanes
_packs: Any = flexllm_heads
_heads: Any = heads
_hadamard: Any = hadamard


@dataclass(frozen=True)
class Decode:
    """How much a decode does at once; the defaults are FlexLLM's U280 design.

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
        check_parameters({
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
                "an MLP whose width is a power of two": is_power(c.intermediate_size),
                f"heads whose size is a multiple of {self.value}": c.head_dim % self.value == 0,
            }
        if n := self.head_parallel:
            more |= {f"KV heads of which {n} can be side by side": c.num_key_value_heads % n == 0}
        check_model(model, more)

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
        return lower_all([(_graph.decode, sizes | own | {"H": model.config.num_attention_heads})])

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


__all__ = ["Decode", "DecodeOperators"]
