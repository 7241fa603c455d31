"""FlexLLM's engine of decode: P ports of weights, one engine for the linear layers of all shapes.

A port holds a beat of C rows for every input channel of a tile, tile after tile, of all layers; the terms of
output channels lie in a table of the same order, those of G neighbours side by side. A layer is where these
begin, how many tiles it has and of how many input channels. Vectors have room for the largest layer. Where a
layer has few rows, two ports may share them, each with half of the columns.
"""

from __future__ import annotations

from flexllm_allo import grid, meta_for, meta_if, params, template
from flexllm_allo.ir.types import Stream, float32, int32

B, C, G, K, M, N, P, Q, Z, Tw, Tx = params("B, C, G, K, M, N, P, Q, Z, Tw, Tx")


@template(Tw, M, C)
def send_beats(W: Tw[M, C], first: int32, count: int32, beats: Stream[Tw[C], 16]):
    """Send beats from `first` on."""
    for i in range(count, name="beat"):
        word: Tw[C]
        for c in range(C, name="lane"):
            word[c] = W[first + i, c]
        beats.put(word)


@template(P, G)
def send_terms(terms: float32[Q, 2 * G], first: int32, count: int32, pairs: Stream[float32[2], 64][P]):
    """Send scale and row sum of `count` output channels per port, from channel `first` on."""
    for n in range(count, name="channel"):
        with meta_for(P) as p:
            pair: float32[2]
            for j in range(2, name="term"):
                pair[j] = terms[first // G + n * (P // G) + p // G, p % G * 2 + j]
            pairs[p].put(pair)


@template(B, P, Z, Tw, C)
def engine(
    X: Tx[1, K], x_terms: float32[1, 2], beats: Stream[Tw[C], 16][P], pairs: Stream[float32[2], 64][P],
    size: int32, second: int32, tiles: int32, Y: float32[1, N],
):  # fmt: skip
    """Products with as many tiles of rows as there are, each of `size` beats.

    All ports have rows of their own; or, if Z is 2 and `second` is not 0, each of the first half shares its
    rows with one of the second half, which has the columns from `second` on.
    """
    A: Tx[K]
    for k_in, b_in in grid((size + second) // B, B, name="load"):
        A[k_in * B + b_in] = X[0, k_in * B + b_in]
    for n in range(tiles, name="tile"):
        acc: int32[P, C]
        for p_0, c_0 in grid(P, C, name="clear"):
            acc[p_0, c_0] = 0
        for k in range(size, name="mac"):
            with meta_for(P) as p:
                word: Tw[C] = beats[p].get()
                for c in range(C, name="product"):
                    acc[p, c] += A[k + (second if p >= P // Z else 0)] * word[c]
        if second == 0:
            for c_out in range(C, name="drain"):
                with meta_for(P) as p:
                    pair: float32[2] = pairs[p].get()
                    y: float32 = acc[p, c_out] * (x_terms[0, 0] * pair[0])
                    Y[0, (n * C + c_out) * P + p] = y + x_terms[0, 1] * pair[1]
        with meta_if(Z == 2):
            if second != 0:
                for c_sum in range(C // 2, name="drain_sums"):
                    with meta_for(P) as p:
                        both: int32 = acc[p % (P // 2), 2 * c_sum + p // (P // 2)]
                        both += acc[P // 2 + p % (P // 2), 2 * c_sum + p // (P // 2)]
                        pair_2: float32[2] = pairs[p].get()
                        y_2: float32 = both * (x_terms[0, 0] * pair_2[0])
                        Y[0, (n * (C // 2) + c_sum) * P + p] = y_2 + x_terms[0, 1] * pair_2[1]


@template(B, P, Z, G)
def linear_engine(
    X: Tx[1, K], x_terms: float32[1, 2], W: Tw[M, C][P], terms: float32[Q, 2 * G],
    beat: int32, channel: int32, size: int32, second: int32, tiles: int32, rows: int32, Y: float32[1, N],
):  # fmt: skip
    """A linear layer: beats and channels from there on; `rows` of every port in all tiles."""
    beats: Stream[Tw[C], 16][P]
    pairs: Stream[float32[2], 64][P]
    with meta_for(P) as p:
        send_beats(W[p], beat, tiles * size, beats[p])
    send_terms[P, G](terms, channel, rows, pairs)
    engine[B, P, Z, Tw, C](X, x_terms, beats, pairs, size, second, tiles, Y)


@template(N)
def take(Y: float32[1, M], first: int32) -> float32[1, N]:
    """N elements from `first` on."""
    Z: float32[1, N]
    for i in range(N, name="element"):
        Z[0, i] = Y[0, first + i]
    return Z
