"""Dynamic quantization of activations, one scale per row."""

from __future__ import annotations

from flexllm_allo import abs, meta_else, meta_if, params, round, template
from flexllm_allo.ir.types import float32

Ty, R, K = params("Ty, R, K")


@template(Ty, R, K)
def quantize(X: float32[R, K]) -> (Ty[R, K], float32[R]):
    """Symmetric codes Q = round(X / scale), scale = max |X| / (2**(bits-1) - 1) per row.

    A row of zeros has scale 1. With a float type the codes are the values and the scale is 1, so
    that one graph serves the unquantized model too. Each element of X is read once, in order.
    """
    Q: Ty[R, K]
    scale: float32[R]
    for r in range(R, name="row"):
        with meta_if(Ty.is_float):
            for k_copy in range(K, name="copy"):
                Q[r, k_copy] = X[r, k_copy]
            scale[r] = 1.0
        with meta_else():
            row: float32[K]
            peak: float32 = 0.0
            for k_peak in range(K, name="peak"):
                x: float32 = X[r, k_peak]
                row[k_peak] = x
                peak = max(peak, abs(x))
            step: float32 = peak / (2 ** (Ty.bits - 1) - 1)
            if step == 0.0:
                step = 1.0
            scale[r] = step
            for k_code in range(K, name="code"):
                Q[r, k_code] = int(round(row[k_code] / step))
    return Q, scale
