"""Convolution and pooling of images in NCHW order, through a zero-padded copy of one image."""

from __future__ import annotations

from ... import Schedule, dsl, params, template
from ...ir.types import int32

Ty, B, Cin, Cout, H, W, Kh, Kw, Oh, Ow = params("Ty, B, Cin, Cout, H, W, Kh, Kw, Oh, Ow")
Sh, Sw, Pd0, Pd1, C, K, S, Pd = params("Sh, Sw, Pd0, Pd1, C, K, S, Pd")


@template(
    Ty, B, Cin, Cout, H, W, Kh, Kw, Oh, Ow, Sh, Sw, Pd0, Pd1,
    where=("(Oh - 1) * Sh + Kh <= H + 2 * Pd0", "(Ow - 1) * Sw + Kw <= W + 2 * Pd1"),
)  # fmt: skip
def conv2d(inp: Ty[B, Cin, H, W], kernel: Ty[Cout, Cin, Kh, Kw], bias: Ty[Cout]) -> Ty[B, Cout, Oh, Ow]:
    """Cross-correlation with strides Sh, Sw and Pd0 rows, Pd1 columns of zeros on each side."""
    out: Ty[B, Cout, Oh, Ow]
    padded: Ty[Cin, H + 2 * Pd0, W + 2 * Pd1] = 0
    for b in dsl.grid(B, name="conv"):
        for c, h, w in dsl.grid(Cin, H, W, name="pad"):
            padded[c, h + Pd0, w + Pd1] = inp[b, c, h, w]
        for oh_init, ow_init, cout in dsl.grid(Oh, Ow, Cout, name="init"):
            out[b, cout, oh_init, ow_init] = bias[cout]
        for co in dsl.grid(Cout, name="mac"):
            for ci, kh, kw in dsl.reduction(Cin, Kh, Kw):
                for oh, ow in dsl.grid(Oh, Ow):
                    out[b, co, oh, ow] += padded[ci, oh * Sh + kh, ow * Sw + kw] * kernel[co, ci, kh, kw]
    return out


@template(
    Ty, B, C, H, W, K, Oh, Ow, S, Pd,
    where=("(Oh - 1) * S + K <= H + 2 * Pd", "(Ow - 1) * S + K <= W + 2 * Pd", "2 * Pd <= K"),
)  # fmt: skip
def maxpool2d(inp: Ty[B, C, H, W]) -> Ty[B, C, Oh, Ow]:
    """The largest of each K x K window; padding never wins."""
    out: Ty[B, C, Oh, Ow]
    for b in dsl.grid(B, name="pool"):
        for oh_init, ow_init, c in dsl.grid(Oh, Ow, C, name="init"):
            out[b, c, oh_init, ow_init] = inp[b, c, max(oh_init * S - Pd, 0), max(ow_init * S - Pd, 0)]
        for ch in dsl.grid(C, name="window"):
            for kh, kw in dsl.reduction(K, K):
                for oh, ow in dsl.grid(Oh, Ow):
                    h: int32 = oh * S + kh - Pd
                    w: int32 = ow * S + kw - Pd
                    if h >= 0 and h < H and w >= 0 and w < W:
                        out[b, ch, oh, ow] = max(out[b, ch, oh, ow], inp[b, ch, h, w])
    return out


@template(
    Ty, B, C, H, W, K, Oh, Ow, S, Pd,
    where=("(Oh - 1) * S + K <= H + 2 * Pd", "(Ow - 1) * S + K <= W + 2 * Pd"),
)  # fmt: skip
def avgpool2d(inp: Ty[B, C, H, W]) -> Ty[B, C, Oh, Ow]:
    """The mean of each K x K window; padding counts as zeros."""
    out: Ty[B, C, Oh, Ow]
    for b in dsl.grid(B, name="pool"):
        for oh_init, ow_init, c in dsl.grid(Oh, Ow, C, name="init"):
            out[b, c, oh_init, ow_init] = 0
        for ch in dsl.grid(C, name="window"):
            for kh, kw in dsl.reduction(K, K):
                for oh, ow in dsl.grid(Oh, Ow):
                    h: int32 = oh * S + kh - Pd
                    w: int32 = ow * S + kw - Pd
                    if h >= 0 and h < H and w >= 0 and w < W:
                        out[b, ch, oh, ow] += inp[b, ch, h, w]
            for oh_back, ow_back in dsl.grid(Oh, Ow, name="mean"):
                out[b, ch, oh_back, ow_back] = out[b, ch, oh_back, ow_back] / (K * K)
    return out


def schedule_conv2d(s: Schedule) -> Schedule:
    """One output pixel per cycle; the reduction runs outside, so sums do not wait for each other."""
    s.pipeline("cout")
    s.pipeline("ow")
    return s


def schedule_maxpool2d(s: Schedule) -> Schedule:
    """One output pixel per cycle; the window runs outside."""
    s.pipeline("c")
    s.pipeline("ow")
    return s


def schedule_avgpool2d(s: Schedule) -> Schedule:
    """As `schedule_maxpool2d`."""
    schedule_maxpool2d(s)
    s.pipeline("ow_back")
    return s


SCHEDULES = {conv2d: schedule_conv2d, maxpool2d: schedule_maxpool2d, avgpool2d: schedule_avgpool2d}
