"""Hadamard matrices by Paley's constructions: orthogonal, all entries 1 or -1, computed from finite fields.

A module of its own below the compiler, because kernels build their constant tables from it and the
quantizer its rotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count, product

import numpy as np
from numpy.typing import NDArray

from .errors import QuantError

Signs = NDArray[np.int8]


@cache
def hadamard_base(n: int) -> tuple[int, int]:
    """(m, k) with n = m * 2^k, the smallest m (so most butterflies) of which `hadamard_matrix` is known.

    m is 1; or q + 1 for a prime power q = 3 mod 4 (Paley I); or 2 (q + 1) for one of 1 mod 4 (Paley II).

    Raises:
        QuantError: FX604, n has no such factor; the hint names the nearest sizes that have one.
    """
    found = _base(n)
    if found is None:
        below = next((i for i in range(n - 1, 0, -1) if _base(i)), None)
        above = next(i for i in count(max(n, 0) + 1) if _base(i))
        near = f"{below} and {above}" if below else f"{above}"
        raise QuantError(
            "FX604",
            f"no Hadamard matrix of size {n} can be constructed",
            hint=f"the nearest sizes are {near}; sizes are m * 2^k with m = 1, 12, 20, 28, 36, ... (Paley)",
        )
    return found


def _base(n: int) -> tuple[int, int] | None:
    if n < 1:
        return None
    twos = (n & -n).bit_length() - 1
    for k in range(twos, -1, -1):
        m = n >> k
        if m == 1 or _paley_order(m):
            return m, k
    return None


def _paley_order(m: int) -> int:
    """The prime power q whose field gives a matrix of size m, or 0."""
    if m % 4:
        return 0
    for q, residue in ((m - 1, 3), (m // 2 - 1, 1)):
        if q % 4 == residue and _prime_power(q):
            return q
    return 0


def _prime_power(q: int) -> tuple[int, int] | None:
    """(p, e) with q = p^e for a prime p."""
    if q < 2:
        return None
    p = next((d for d in range(2, int(q**0.5) + 1) if q % d == 0), q)
    e = 0
    while q % p == 0:
        q, e = q // p, e + 1
    return (p, e) if q == 1 else None


@cache
def hadamard_matrix(m: int) -> Signs:
    """int8 [m, m] of 1 and -1 with H @ H.T = m I, for the m of `hadamard_base`; read-only.

    Source: R. E. A. C. Paley, On orthogonal matrices, J. Math. Phys. 12 (1933).

    Raises:
        QuantError: FX604, there is no construction of this size (powers of two above 1 are butterflies).
    """
    if m == 1:
        matrix = np.ones((1, 1), np.int8)
    else:
        q = _paley_order(m)
        if not q:
            raise QuantError(
                "FX604",
                f"{m} is not the size of a Paley matrix",
                hint="split the size with hadamard_base(n) first: n = m * 2^k",
            )
        matrix = _paley_one(q) if m == q + 1 else _paley_two(q)
    matrix.flags.writeable = False
    return matrix


def _paley_one(q: int) -> Signs:
    skew = _bordered(q, -1)
    return skew + np.eye(q + 1, dtype=np.int8)


def _paley_two(q: int) -> Signs:
    conference = _bordered(q, 1)
    off, on = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    return np.kron(conference, off) + np.kron(np.eye(q + 1, dtype=np.int8), on)


def _bordered(q: int, corner: int) -> Signs:
    """[[0, 1], [corner, Q]] with Q[i, j] = character(i - j): zero diagonal, rows orthogonal."""
    table = np.zeros((q + 1, q + 1), np.int8)
    table[0, 1:], table[1:, 0] = 1, corner
    table[1:, 1:] = _characters(q)
    return table


def _characters(q: int) -> Signs:
    """[q, q] of the quadratic character of i - j in GF(q): 1 for a square, -1 for none, 0 for zero.

    Element number x has the base-p digits of x as its coordinates.
    """
    power = _prime_power(q)
    assert power is not None
    p, e = power
    weights = p ** np.arange(e)
    digits = np.arange(q)[:, None] // weights % p
    difference = ((digits[:, None] - digits[None]) % p) @ weights
    character = np.zeros(q, np.int8)
    # The powers of a primitive element run through all but zero; the even ones are the squares.
    for exponent, element in enumerate(_powers(p, e)):
        character[int(np.dot(element, weights))] = -1 if exponent % 2 else 1
    return character[difference]


def _powers(p: int, e: int) -> list[tuple[int, ...]]:
    """x^0, x^1, ... x^(q-2) in GF(p)[x] modulo the first polynomial of degree e that makes x primitive."""
    # x^e = tail[0] + tail[1] x + ...; with tail[0] = 0 x would have no inverse.
    for tail in product(range(1, p), *(range(p),) * (e - 1)):
        powers = list(_orbit(p, tail))
        if len(powers) == p**e - 1:
            return powers
    raise AssertionError(f"GF({p}^{e}) has a primitive element")


def _orbit(p: int, tail: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The powers of an invertible x, all different, until 1 comes back."""
    one = (1, *(0,) * (len(tail) - 1))
    element = one
    while True:
        yield element
        top = element[-1]
        shifted = (0, *element[:-1])
        element = tuple((s + top * t) % p for s, t in zip(shifted, tail, strict=True))
        if element == one:
            return
