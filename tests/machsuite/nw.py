"""Needleman-Wunsch alignment: scores and trace-back."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32, uint8

A, B = 8, 7
MATCH, MISMATCH, GAP = 1, -1, -1


def nw(
    seq_a: uint8[A], seq_b: uint8[B], M: int32[B + 1, A + 1], ptr: uint8[B + 1, A + 1], steps: uint8[A + B]
) -> int32:
    for i in range(A + 1, name="top"):
        M[0, i] = i * GAP
    for j in range(B + 1, name="left"):
        M[j, 0] = j * GAP
    for b, a in allo.grid(B, A, name="fill"):
        score: int32 = MISMATCH
        if seq_a[a] == seq_b[b]:
            score = MATCH
        diagonal: int32 = M[b, a] + score
        up: int32 = M[b, a + 1] + GAP
        left: int32 = M[b + 1, a] + GAP
        best: int32 = max(diagonal, max(up, left))
        M[b + 1, a + 1] = best
        if best == left:
            ptr[b + 1, a + 1] = 2
        elif best == up:
            ptr[b + 1, a + 1] = 1
        else:
            ptr[b + 1, a + 1] = 0
    x: int32 = A
    y: int32 = B
    n: int32 = 0
    while x > 0 or y > 0:
        move: int32 = 0
        if y == 0:
            move = 2
        elif x == 0:
            move = 1
        else:
            move = ptr[y, x]
        steps[n] = move
        n += 1
        if move == 0:
            x -= 1
            y -= 1
        elif move == 1:
            y -= 1
        else:
            x -= 1
    return n


def check():
    a, b = (np.random.randint(0, 4, n).astype(np.uint8) for n in (A, B))
    M, ptr, steps = (
        np.zeros((B + 1, A + 1), np.int32),
        np.zeros((B + 1, A + 1), np.uint8),
        np.zeros(A + B, np.uint8),
    )
    n = allo.customize(nw).build()(a, b, M, ptr, steps)
    want = np.zeros((B + 1, A + 1), int)
    want[0], want[:, 0] = -np.arange(A + 1), -np.arange(B + 1)
    for j, i in np.ndindex(B, A):
        diagonal = want[j, i] + (1 if a[i] == b[j] else -1)
        want[j + 1, i + 1] = max(diagonal, want[j, i + 1] - 1, want[j + 1, i] - 1)
    np.testing.assert_array_equal(M, want)
    used_a, used_b = (steps[:n] != 1).sum(), (steps[:n] != 2).sum()
    assert (used_a, used_b) == (A, B)
