"""Fake quantization in torch: the values that the hardware's rules give, differentiable straight through.

Values come from the rules themselves (`quant.activation`, `integer.rounding`). A value is x + s * e, with
the error e in units of the scale s held constant: gradients reach x unchanged and s through the error, so a
rotation that lowers the range lowers the error.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..activation import fake_quantize, quantize_static
from ..formats import ActivationFormat, FloatFormat, IntFormat, ProgressiveFormat, WeightFormat
from ..integer.rounding import round_weight


def fake_activation(x: Tensor, fmt: ActivationFormat | None) -> Tensor:
    """x [..., K] as `fmt` gives it back, one scale per row; x itself without a format."""
    if fmt is None:
        return x
    value = fake_quantize(x.detach().numpy(), fmt)
    if isinstance(fmt, FloatFormat):
        return _through(x, value, torch.ones(()))
    return _through(x, value, _scale(x, fmt, (-1,)))


def fake_heads(x: Tensor, fmt: IntFormat | None) -> Tensor:
    """Queries, keys or values [B, heads, T, D]: a scale per token and head, or per head (static)."""
    if fmt is None or fmt.granularity == "per_token_and_head":
        return fake_activation(x, fmt)
    scale = _scale(x, fmt, (0, 2, 3))
    steps = scale.detach().numpy()
    return _through(x, quantize_static(x.detach().numpy(), steps) * steps, scale)


def fake_weight(weight: Tensor, fmt: WeightFormat | None) -> Tensor:
    """A weight [N, K] rounded to nearest as `Rtn` does it."""
    if fmt is None:
        return weight
    value = round_weight(weight.detach().numpy(), fmt).dequantize()
    if isinstance(fmt, ProgressiveFormat):
        return _through(weight, value, torch.ones(()))
    rows = 1 if fmt.granularity == "per_tensor" else len(weight)
    groups = weight.reshape(rows, fmt.groups(weight.shape[1]), -1)
    return _through(groups, value.reshape(groups.shape), _scale(groups, fmt, (-1,))).reshape(weight.shape)


def _scale(x: Tensor, fmt: IntFormat, shared: tuple[int, ...]) -> Tensor:
    """The range of x over the dimensions `shared`, in steps of the format."""
    if fmt.zero == "none":
        scale = x.abs().amax(shared, keepdim=True) / fmt.high
    else:
        low, high = x.amin(shared, keepdim=True), x.amax(shared, keepdim=True)
        if fmt.zero == "integer":
            low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / fmt.high
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _through(x: Tensor, value: NDArray[Any], scale: Tensor) -> Tensor:
    """`value` exactly, with the gradient of x + scale * e."""
    if not x.requires_grad:
        return torch.as_tensor(value)
    rounded = torch.as_tensor(value)
    error = (rounded - x.detach()) / scale.detach()
    return rounded + (x - x.detach()) + (scale - scale.detach()) * error
