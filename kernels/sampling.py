"""Choosing the next token: the likeliest, or a random one of the likeliest, on the device.

Temperature, top-k and top-p (nucleus) at run time, defined to the bit:

1. Candidates are the `limit` largest logits in falling order, equal ones by index: limit = 1 if the
   temperature is 0 or below (greedy), else top_k, at most K; top_k <= 0 asks for K.
2. Candidate i weighs exp((x[i] - x[0]) / temperature); c[i] is the sum of weights 0 .. i, added in order.
3. The nucleus is the shortest list of first candidates with c >= top_p * c[last], at least one; its sum is m.
4. The token is the first one of the nucleus with c > u * m (the last one if none is), u = `uniform(seed,
   position)`, where `position` is that of the new token: a run depends on its prompt and its seed alone.

K is fixed in hardware, so that top-p too looks at the K likeliest tokens only, where a definition over the
whole vocabulary would sort all of it. Nothing is random but the seed.
"""

from __future__ import annotations

from flexllm_allo import Bundle, exp, params, template
from flexllm_allo.ir.types import float32, int32, uint32

V, M, K = params("V, M, K")

CANDIDATES = 64
"""Most candidates of a design."""


class Sampling(Bundle):
    """How the next token is chosen; temperature 0 is greedy."""

    temperature: float32
    top_k: int32
    top_p: float32
    seed: int32


@template(V, K)
def candidates(logits: float32[1, V], limit: int32) -> (float32[K], int32[K]):
    """The `limit` <= K largest logits in falling order, equal ones by index, and their indices.

    A logit is compared with the smallest kept one; if it is larger, all entries take the logit, their
    neighbour or stay, each on its own: K comparators in a row, which a schedule may unroll.
    """
    value: float32[K] = -3.4028234e38
    index: int32[K] = 0
    for v in range(V, name="logit"):
        x: float32 = logits[0, v]
        if x > value[limit - 1]:
            for i in range(K - 1, name="entry"):
                if x > value[K - 2 - i]:
                    value[K - 1 - i] = value[K - 2 - i]
                    index[K - 1 - i] = index[K - 2 - i]
                elif x > value[K - 1 - i]:
                    value[K - 1 - i] = x
                    index[K - 1 - i] = v
            if x > value[0]:
                value[0] = x
                index[0] = v
    return value, index


def scramble(x: uint32) -> uint32:
    """MurmurHash3's finalizer (Appleby): every bit of the result depends on every bit of x, one to one."""
    first: uint32 = 0x85EBCA6B
    second: uint32 = 0xC2B2AE35
    h: uint32 = x
    h = h ^ (h >> 16)
    h = h * first
    h = h ^ (h >> 13)
    h = h * second
    h = h ^ (h >> 16)
    return h


def uniform(seed: int32, position: int32) -> float32:
    """A multiple of 2^-24 in [0, 1): the high 24 bits of scramble(scramble(seed) + position * 0x9E3779B9).

    A counter instead of a state (as in SplitMix, Steele et al. 2014): the same for any order of calls.
    """
    golden: uint32 = 0x9E3779B9
    start: uint32 = seed
    place: uint32 = position
    start = scramble(start)
    h: uint32 = scramble(start + place * golden)
    h = h >> 8
    u: float32 = h
    return u * 5.9604644775390625e-08


@template(V, K)
def sample(
    logits: float32[1, V], position: int32, temperature: float32, top_k: int32, top_p: float32, seed: int32
) -> int32:
    """The token at `position`, by the rules of this module; greedy where the temperature is 0."""
    limit: int32 = K
    if top_k > 0:
        limit = min(top_k, K)
    heat: float32 = temperature
    if temperature <= 0.0:
        limit = 1
        heat = 1.0
    limit = min(limit, V)
    value, index = candidates[V, K](logits, limit)
    total: float32 = 0.0
    upto: float32[K]
    for i_sum in range(limit, name="sum"):
        total += exp((value[i_sum] - value[0]) / heat)
        upto[i_sum] = total
    mass: float32 = upto[0]
    for i_mass in range(1, limit, name="nucleus"):
        if upto[i_mass - 1] < top_p * total:
            mass = upto[i_mass]
    threshold: float32 = uniform(seed, position) * mass
    token: int32 = index[0]
    for i_pick in range(1, limit, name="pick"):
        if upto[i_pick - 1] <= threshold and upto[i_pick - 1] < mass:
            token = index[i_pick]
    return token


@template(M)
def is_stop(token: int32, stop: int32[M]) -> int32:
    """1 when the token is one of the stop tokens; unused entries of `stop` are -1."""
    found: int32 = 0
    for i in range(M, name="stop"):
        if token == stop[i]:
            found = 1
    return found
