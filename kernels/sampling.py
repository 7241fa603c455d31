"""Choosing the next token."""

from __future__ import annotations

from flexllm_allo import params, template
from flexllm_allo.ir.types import float32, int32

V, M = params("V, M")


@template(V)
def greedy(logits: float32[1, V]) -> int32:
    """The first index of the largest logit."""
    best: float32 = logits[0, 0]
    token: int32 = 0
    for v in range(V, name="argmax"):
        if logits[0, v] > best:
            best = logits[0, v]
            token = v
    return token


@template(M)
def is_stop(token: int32, stop: int32[M]) -> int32:
    """1 when the token is one of the stop tokens; unused entries of `stop` are -1."""
    found: int32 = 0
    for i in range(M, name="stop"):
        if token == stop[i]:
            found = 1
    return found
