"""Fake quantization in torch: values rounded as a format rounds them, differentiable straight through.

The value is x + s * e with e = code - x / s held constant, so gradients reach x unchanged and the scale s
through the rounding error: a rotation that lowers the range lowers the error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import ActivationFormat, FloatFormat, IntFormat, ProgressiveFormat, WeightFormat


def fake_activation(x: Tensor, fmt: ActivationFormat | None) -> Tensor:
    """x [..., K] as `fmt` gives it back, one scale per row; x itself without a format."""
    if fmt is None or (isinstance(fmt, FloatFormat) and fmt.bits >= 32):
        return x
    if isinstance(fmt, FloatFormat):
        return x + (x.half().float() - x).detach()
    return _rounded(x, fmt, (-1,))


def fake_heads(x: Tensor, fmt: IntFormat | None) -> Tensor:
    """Queries, keys or values [B, heads, T, D]: a scale per token and head, or per head (static)."""
    if fmt is None:
        return x
    return _rounded(x, fmt, (-1,) if fmt.granularity == "per_token_and_head" else (0, 2, 3))


def fake_weight(weight: Tensor, fmt: WeightFormat | None) -> Tensor:
    """A weight [N, K] rounded to nearest within its whole range (no searched clipping, no sparsity)."""
    if fmt is None:
        return weight
    if isinstance(fmt, ProgressiveFormat):
        return weight + (_progressive(weight.detach(), fmt) - weight).detach()
    if fmt.granularity == "per_group":
        groups = weight.reshape(len(weight), -1, fmt.group)
        return _rounded(groups, fmt, (-1,)).reshape(weight.shape)
    return _rounded(weight, fmt, (0, 1) if fmt.granularity == "per_tensor" else (-1,))


def _rounded(x: Tensor, fmt: IntFormat, shared: tuple[int, ...]) -> Tensor:
    """x rounded with one scale over the dimensions `shared`."""
    if fmt.zero == "none":
        scale = _nonzero(x.abs().amax(shared, keepdim=True) / fmt.high)
        exact = x / scale
        codes = exact.round().clamp(fmt.low, fmt.high)
        return x + scale * (codes - exact).detach()
    low, high = x.amin(shared, keepdim=True), x.amax(shared, keepdim=True)
    if fmt.zero == "integer":
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _nonzero((high - low) / fmt.high)
    exact = (x - low) / scale
    if fmt.zero == "integer":
        zero = (-low / scale).round()
        exact = x / scale + zero
    codes = exact.round().clamp(0, fmt.high)
    return x + scale * (codes - exact).detach()


def _progressive(weight: Tensor, fmt: ProgressiveFormat) -> Tensor:
    scale = _nonzero(weight.abs().amax(-1, keepdim=True) / fmt.limit)
    groups = (weight / scale).round().reshape(len(weight), -1, fmt.group)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / fmt.high).round().clamp(min=1)
    zero = (-low / step).round()
    codes = ((groups / step).round() + zero).clamp(0, fmt.high)
    return ((codes - zero) * step).reshape(weight.shape) * scale


def _nonzero(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)
