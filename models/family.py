"""What is particular to a model family: how Hugging Face describes it, and what its layers are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flexllm_allo.models.tensors import Entry
from flexllm_allo.quant.architecture import Architecture


def _as_they_are(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return dict(entries)


@dataclass(frozen=True)
class Family:
    """A family of models, by the names of transformers.

    Attributes:
        model_type: in config.json.
        architecture: the class of the model with a head.
        layer: what its layers are made of.
        defaults: fields that config.json may leave out, as its configuration class has them.
        fields: our name of a configuration field -> the family's, where they differ.
        fixed: fields that must have this value, if they are there.
        window: whether ``sliding_window`` of config.json counts: never, always, or if the ``flag``
            ``use_sliding_window`` is set.
        activations: values of ``hidden_act`` that mean the activation of `layer`.
        read: the tensors of its files under the names (and in the layout) of Llama.
        named: the family's name of a tensor of Llama's, for messages.
    """

    model_type: str
    architecture: str
    layer: Architecture = field(default_factory=Architecture)
    defaults: Mapping[str, Any] = field(default_factory=lambda: {})
    fields: Mapping[str, str] = field(default_factory=lambda: {})
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"attention_bias": False, "mlp_bias": False})
    window: Literal["never", "flag", "always"] = "never"
    activations: tuple[str, ...] = ("silu", "swish")
    read: Callable[[Mapping[str, Entry]], dict[str, Entry]] = _as_they_are
    named: Callable[[str], str] = str
