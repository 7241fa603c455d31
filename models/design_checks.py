"""What designs with kernels of their own compute: Llamas by FlexLLM's recipe, in sizes that fit."""

from __future__ import annotations

from typing import Any

from flexllm_allo.errors import UsageError
from flexllm_allo.ir.dtypes import Int
from flexllm_allo.kernels import attention, linear, norm, quantize

from .model import Model

ATTENTION = ("wq", "wk", "wv", "wo")
MLP = ("w_gate", "w_up", "w_down")
_attention: Any = attention
_linear: Any = linear
_norm: Any = norm
_quantize: Any = quantize


def check_model(model: Model, more: dict[str, bool]) -> None:
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


def check_parameters(rules: dict[str, bool]) -> None:
    """Refuse a size that no design has.

    Raises:
        UsageError: FX703, the first rule that does not hold.
    """
    broken = next((rule for rule, holds in rules.items() if not holds), None)
    if broken is not None:
        raise UsageError("FX703", broken, hint="change these parameters of the stage")


def is_power(size: int) -> bool:
    """Of two."""
    return size & (size - 1) == 0


__all__ = ["ATTENTION", "MLP", "check_model", "check_parameters", "is_power"]
