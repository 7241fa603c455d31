"""Layers of neural networks as kernels, and their schedules (what `compose` applies to each)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import conv, elementwise, layout, linear, norm, rowwise
from .attention import CoreAttention, KVCache, RoPE, scaled_dot_product_attention
from .conv import (
    avgpool2d,
    conv2d,
    maxpool2d,
    schedule_avgpool2d,
    schedule_conv2d,
    schedule_maxpool2d,
)
from .elementwise import (
    GeLU,
    modulate_fused,
    relu2d,
    relu3d,
    relu4d,
    residual_add,
    schedule_gelu,
    schedule_modulate_fused,
    schedule_relu2d,
    schedule_relu3d,
    schedule_relu4d,
)
from .layout import concat, repeat_batch3d, schedule_concat, schedule_repeat_batch3d
from .linear import linear2d, linear3d, schedule_linear2d, schedule_linear3d
from .norm import (
    batchnorm1d_2d,
    batchnorm1d_3d,
    batchnorm2d,
    layer_norm,
    schedule_batchnorm1d_2d,
    schedule_batchnorm1d_3d,
    schedule_batchnorm2d,
    schedule_layernorm,
)
from .rowwise import log_softmax, schedule_log_softmax, schedule_softmax, softmax

SCHEDULES: dict[Callable[..., Any], Callable[..., Any]] = {
    **linear.SCHEDULES,
    **elementwise.SCHEDULES,
    **rowwise.SCHEDULES,
    **norm.SCHEDULES,
    **conv.SCHEDULES,
    **layout.SCHEDULES,
}

__all__ = [
    "CoreAttention",
    "GeLU",
    "KVCache",
    "RoPE",
    "avgpool2d",
    "batchnorm1d_2d",
    "batchnorm1d_3d",
    "batchnorm2d",
    "concat",
    "conv2d",
    "layer_norm",
    "linear2d",
    "linear3d",
    "log_softmax",
    "maxpool2d",
    "modulate_fused",
    "relu2d",
    "relu3d",
    "relu4d",
    "repeat_batch3d",
    "residual_add",
    "scaled_dot_product_attention",
    "schedule_avgpool2d",
    "schedule_batchnorm1d_2d",
    "schedule_batchnorm1d_3d",
    "schedule_batchnorm2d",
    "schedule_concat",
    "schedule_conv2d",
    "schedule_gelu",
    "schedule_layernorm",
    "schedule_linear2d",
    "schedule_linear3d",
    "schedule_log_softmax",
    "schedule_maxpool2d",
    "schedule_modulate_fused",
    "schedule_relu2d",
    "schedule_relu3d",
    "schedule_relu4d",
    "schedule_repeat_batch3d",
    "schedule_softmax",
    "softmax",
]
