"""Knuth-Morris-Pratt string search."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32, uint8

PATTERN, TEXT = 4, 64


def cpf(pattern: uint8[PATTERN], nxt: int32[PATTERN]):
    k: int32 = 0
    nxt[0] = 0
    for q in range(1, PATTERN):
        while k > 0 and pattern[k] != pattern[q]:
            k = nxt[k - 1]
        if pattern[k] == pattern[q]:
            k += 1
        nxt[q] = k


def kmp(pattern: uint8[PATTERN], text: uint8[TEXT]) -> int32:
    nxt: int32[PATTERN] = 0
    cpf(pattern, nxt)
    matches: int32 = 0
    q: int32 = 0
    for i in range(TEXT):
        while q > 0 and pattern[q] != text[i]:
            q = nxt[q - 1]
        if pattern[q] == text[i]:
            q += 1
        if q >= PATTERN:
            matches += 1
            q = nxt[q - 1]
    return matches


def check():
    text = np.random.default_rng(1).choice(list(b"ab"), TEXT).astype(np.uint8)
    pattern = np.frombuffer(b"abab", np.uint8)
    want = sum(bytes(text[i : i + 4]) == b"abab" for i in range(TEXT))
    assert want > 0
    assert allo.customize(kmp).build()(pattern.copy(), text) == want
