"""FlexLLM's linear layers: weights that arrive through FIFOs at an array of tokens x output channels.

A weight lies in tiles of P C rows, one after the other: for every input channel a beat of C rows from each
of P memory ports, which hold neighbouring rows. A port's words have D rows, of which the last D - C are not
used; rows past N are padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flexllm_allo import Bundle, Self, Traits, grid, meta_for, params, template
from flexllm_allo.ir.types import DType, Stream, float32, int32

F, Tx, Tw, T, N, K, P, C, D, M = params("F, Tx, Tw, T, N, K, P, C, D, M")


@dataclass(frozen=True)
class Array(Traits):
    """An array of multipliers and the storage of its weights.

    Attributes:
        dtype: of a weight.
        linear: ``linear[ports, channels, word](x, x_terms, *weight) -> float32[T, N]``.
        Weight: the arrays of a weight [N, K].
        ports: memory ports that weights come from.
        channels: output channels per port and cycle.
        word: rows in a word of a port, at least `channels`.
    """

    dtype: DType
    linear: Callable[..., Any]
    Weight: type[Bundle]
    ports: int
    channels: int
    word: int

    def rows(self, size: int) -> int:
        """Rows of each port's part of a weight with `size` output channels."""
        return -(-size // (self.ports * self.channels)) * self.word


class Tiles(Bundle, of="N, K"):
    """A weight as its ports read it."""

    codes: Self.dtype[Self.rows(N), K][Self.ports]
    terms: float32[N, 2]


@template(C, D)
def read_beats(W: Tw[M, K], beats: Stream[Tw[C], 16]):
    """Send the first C of every D rows of W, column by column."""
    for n, k in grid(M // D, K, name="beat"):
        word: Tw[C]
        for c in range(C, name="lane"):
            word[c] = W[n * D + c, k]
        beats.put(word)


@template(P, C)
def read_terms(terms: float32[N, 2], pairs: Stream[float32[2], 64][P]):
    """Send scale and row sum of every output channel in turn to P FIFOs; channels past N are padding."""
    for n in range((N + P * C - 1) // (P * C) * C, name="channel"):
        with meta_for(P) as p:
            pair: float32[2]
            for j in range(2, name="term"):
                pair[j] = terms[min(n * P + p, N - 1), j]
            pairs[p].put(pair)


@template(Tx, Tw, T, N, K, P, C)
def multiply(
    X: Tx[T, K], x_terms: float32[T, 2], beats: Stream[Tw[C], 16][P], pairs: Stream[float32[2], 64][P]
) -> float32[T, N]:
    """`linear` on an array of T x (P C) products: load the inputs, then tile after tile.

    Every port has rows of its own, which leave side by side.
    """
    A: Tx[T, K]
    for k_in, t_in in grid(K, T, name="load"):
        A[t_in, k_in] = X[t_in, k_in]
    Y: float32[T, N]
    for n in range((N + P * C - 1) // (P * C), name="tile"):
        acc: int32[T, P, C]
        for t_0, p_0, c_0 in grid(T, P, C, name="clear"):
            acc[t_0, p_0, c_0] = 0
        for k in range(K, name="mac"):
            with meta_for(P) as p:
                word: Tw[C] = beats[p].get()
                for c, t in grid(C, T, name="product"):
                    acc[t, p, c] += A[t, k] * word[c]
        for c_out in range(C, name="drain"):
            with meta_for(P) as p:
                pair: float32[2] = pairs[p].get()
                for t_out in range(T, name="scale"):
                    y: float32 = acc[t_out, p, c_out] * (x_terms[t_out, 0] * pair[0])
                    y += x_terms[t_out, 1] * pair[1]
                    if (n * C + c_out) * P + p < N:
                        Y[t_out, (n * C + c_out) * P + p] = y
    return Y


@template(P, C, D, T, N)
def linear_ports(
    X: Tx[T, K], x_terms: float32[T, 2], W: Tw[M, K][P], w_terms: float32[N, 2]
) -> float32[T, N]:
    """A linear layer whose weights come from P ports."""
    beats: Stream[Tw[C], 16][P]
    pairs: Stream[float32[2], 64][P]
    with meta_for(P) as p:
        read_beats[C, D](W[p], beats[p])
    read_terms[P, C](w_terms, pairs)
    Y = multiply[Tx, Tw, T, N, K, P, C](X, x_terms, beats, pairs)
    return Y
