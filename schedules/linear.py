"""Linear layers: one array of multipliers, tokens x output channels x columns, which stages shape by numbers.

With many tokens it is prefill's two-dimensional array, a column of inputs against rows of W for all tokens in
every cycle; with one token and several columns decode's dot products, trees of adders over a piece of a row.
"""

from __future__ import annotations

from flexllm_allo import Schedule


def linear(s: Schedule, rows: int, columns: int = 1) -> None:
    """All tokens meet `columns` columns of `rows` rows of W in every cycle."""
    s.vectorize("mac.t")
    s.vectorize("mac.n", rows)
    s.vectorize("mac.k", columns)
    s.pipeline()


def grouped(s: Schedule, columns: int, loop: str = "k") -> None:
    """Weights with scales per group: `columns` neighbours of a row meet the inputs of all tokens."""
    s.vectorize(loop, columns)
    s.vectorize("t")
    s.pipeline()
