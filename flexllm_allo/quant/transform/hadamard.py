"""The orthonormal Hadamard transform of activations and weights, and which ones a model computes online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...paley import hadamard_base, hadamard_matrix

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class Online:
    """The Hadamard transforms that a rotated model computes at run time.

    Attributes:
        r3: of every query and key head (width head_dim), after the rotary embedding.
        r4: of the input of down_proj (width intermediate_size).
        out: of the input of o_proj (width heads * head_dim).
    """

    r3: bool = False
    r4: bool = False
    out: bool = False


def hadamard_transform(x: NDArray[Real]) -> NDArray[Real]:
    """y = x @ (H_m kron S_k).T / sqrt(n) over the last axis; an orthogonal map.

    n = m * 2^k as `hadamard_base` splits it, H_m is `hadamard_matrix(m)`, S_k Sylvester's matrix of size 2^k
    (symmetric; the same map is its own inverse for m = 1, and for symmetric H_m).

    Every step is one operation in the type of `x`, in the order of `kernels.hadamard`, so float32 results are
    the kernel's bit for bit:

    1. for s = 0 .. k - 1, within each block of 2^k neighbours, every pair (a, b) at the distance 2^s becomes
       (a + b, a - b);
    2. if m > 1, block i becomes the sum of H_m[i, c] * block c from 0.0, c upwards;
    3. every element is multiplied once, by n^-0.5 rounded to the type.

    Args:
        x: float32 (activations) or float64 (folding into weights) [..., n].

    Returns:
        A new array of the same shape and type.

    Raises:
        QuantError: FX604, there is no Hadamard matrix of size n.
    """
    n = x.shape[-1]
    m, k = hadamard_base(n)
    blocks: NDArray[Any] = np.ascontiguousarray(x).reshape(-1, m, 2**k)
    for stage in range(k):
        pairs = blocks.reshape(len(blocks), -1, 2, 2**stage)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        blocks = np.stack((low + high, low - high), axis=2).reshape(blocks.shape)
    if m > 1:
        blocks = _across(blocks, m)
    return (blocks * x.dtype.type(n**-0.5)).reshape(x.shape)


def _across(blocks: NDArray[Any], m: int) -> NDArray[Any]:
    signs = hadamard_matrix(m).astype(blocks.dtype)
    total = np.zeros_like(blocks)
    for c in range(m):
        # Products with 1 and -1 are exact: this adds or subtracts.
        total += signs[:, c, None] * blocks[:, c, None]
    return total


__all__ = ["Online", "hadamard_base", "hadamard_matrix", "hadamard_transform"]
