"""Rows in and out of the residual stream."""

from __future__ import annotations

from flexllm_allo import Bundle, params, template
from flexllm_allo.ir.types import float32, int32

T, N, V, E, S = params("T, N, V, E, S")


class LearnedTables(Bundle):
    """What all layers share where positions are added to tokens."""

    eps: float32
    positions: float32[S, E]


@template(T, N, V, E)
def embedding(tokens: int32[N], at: int32, n: int32, table: float32[V, E]) -> float32[T, E]:
    """Rows of the table for tokens at .. at + n - 1, as a block of T tokens; padding rows are zero."""
    X: float32[T, E]
    for t in range(T, name="token"):
        for e in range(E, name="element"):
            x: float32 = 0.0
            if t < n:
                x = table[tokens[at + t], e]
            X[t, e] = x
    return X


@template(T, E, S)
def add_positions(X: float32[T, E], n: int32, pos: int32, table: float32[S, E]):
    """Add row pos + t of a table of positions to the first n tokens, in place."""
    for t in range(n, name="token"):
        for e in range(E, name="element"):
            X[t, e] = X[t, e] + table[pos + t, e]


@template(T, S, E)
def load_rows(stream: float32[S, E], n: int32, pos: int32) -> float32[T, E]:
    """Rows pos .. pos + n - 1, as a block of T tokens; padding rows are zero."""
    X: float32[T, E]
    for t in range(T, name="token"):
        for e in range(E, name="element"):
            x: float32 = 0.0
            if t < n:
                x = stream[pos + t, e]
            X[t, e] = x
    return X


@template(T, S, E)
def store_rows(X: float32[T, E], n: int32, pos: int32, stream: float32[S, E]):
    """Write the first n tokens of a block to the rows from `pos` on."""
    for t in range(T, name="token"):
        for e in range(E, name="element"):
            x: float32 = X[t, e]
            if t < n:
                stream[pos + t, e] = x
