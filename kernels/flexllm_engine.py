"""FlexLLM's engine of decode: sixteen ports of weights, one engine for the linear layers of all shapes.

A port holds a beat of C rows for every input channel of a tile, tile after tile, of all layers; the terms of
output channels lie in a table of the same order. A layer is where these begin, how many tiles it has and of
how many input channels. Vectors have room for the largest layer.
"""

from __future__ import annotations

from flexllm_allo import grid, meta_for, params, template
from flexllm_allo.ir.types import Stream, float32, int32

PORTS = 16
B, C, K, M, N, Q, Tw, Tx = params("B, C, K, M, N, Q, Tw, Tx")


@template(Tw, M, C)
def send_beats(W: Tw[M, C], first: int32, count: int32, beats: Stream[Tw[C], 16]):
    """Send beats from `first` on."""
    for i in range(count, name="beat"):
        word: Tw[C]
        for c in range(C, name="lane"):
            word[c] = W[first + i, c]
        beats.put(word)


@template(Q)
def send_terms(terms: float32[Q, 2], first: int32, count: int32, pairs: Stream[float32[2], 64][PORTS]):
    """Send scale and row sum of `count` output channels per port, from channel `first` on."""
    for n in range(count, name="channel"):
        with meta_for(PORTS) as p:
            pair: float32[2]
            for j in range(2, name="term"):
                pair[j] = terms[first + n * PORTS + p, j]
            pairs[p].put(pair)


@template(B, Tw, C)
def engine(
    X: Tx[1, K], x_terms: float32[1, 2], beats: Stream[Tw[C], 16][PORTS],
    pairs: Stream[float32[2], 64][PORTS], size: int32, tiles: int32, Y: float32[1, N],
):  # fmt: skip
    """Products of `size` inputs, which are loaded by B, with as many tiles of rows as there are."""
    A: Tx[K]
    for k_in, b_in in grid(size // B, B, name="load"):
        A[k_in * B + b_in] = X[0, k_in * B + b_in]
    for n in range(tiles, name="tile"):
        acc: int32[PORTS, C]
        for p_0, c_0 in grid(PORTS, C, name="clear"):
            acc[p_0, c_0] = 0
        for k in range(size, name="mac"):
            with meta_for(PORTS) as p:
                word: Tw[C] = beats[p].get()
                for c in range(C, name="product"):
                    acc[p, c] += A[k] * word[c]
        for c_out in range(C, name="drain"):
            with meta_for(PORTS) as p:
                pair: float32[2] = pairs[p].get()
                y: float32 = acc[p, c_out] * (x_terms[0, 0] * pair[0])
                Y[0, (n * C + c_out) * PORTS + p] = y + x_terms[0, 1] * pair[1]


@template(B)
def linear_engine(
    X: Tx[1, K], x_terms: float32[1, 2],
    W0: Tw[M, C], W1: Tw[M, C], W2: Tw[M, C], W3: Tw[M, C], W4: Tw[M, C], W5: Tw[M, C],
    W6: Tw[M, C], W7: Tw[M, C], W8: Tw[M, C], W9: Tw[M, C], W10: Tw[M, C], W11: Tw[M, C],
    W12: Tw[M, C], W13: Tw[M, C], W14: Tw[M, C], W15: Tw[M, C],
    terms: float32[Q, 2], beat: int32, channel: int32, size: int32, tiles: int32, Y: float32[1, N],
):  # fmt: skip
    """A linear layer: beats and channels from there on."""
    beats: Stream[Tw[C], 16][PORTS]
    pairs: Stream[float32[2], 64][PORTS]
    send_beats(W0, beat, tiles * size, beats[0])
    send_beats(W1, beat, tiles * size, beats[1])
    send_beats(W2, beat, tiles * size, beats[2])
    send_beats(W3, beat, tiles * size, beats[3])
    send_beats(W4, beat, tiles * size, beats[4])
    send_beats(W5, beat, tiles * size, beats[5])
    send_beats(W6, beat, tiles * size, beats[6])
    send_beats(W7, beat, tiles * size, beats[7])
    send_beats(W8, beat, tiles * size, beats[8])
    send_beats(W9, beat, tiles * size, beats[9])
    send_beats(W10, beat, tiles * size, beats[10])
    send_beats(W11, beat, tiles * size, beats[11])
    send_beats(W12, beat, tiles * size, beats[12])
    send_beats(W13, beat, tiles * size, beats[13])
    send_beats(W14, beat, tiles * size, beats[14])
    send_beats(W15, beat, tiles * size, beats[15])
    send_terms(terms, channel, tiles * C, pairs)
    engine[B, Tw, C](X, x_terms, beats, pairs, size, tiles, Y)


@template(N)
def take(Y: float32[1, M], first: int32) -> float32[1, N]:
    """N elements from `first` on."""
    Z: float32[1, N]
    for i in range(N, name="element"):
        Z[0, i] = Y[0, first + i]
    return Z
