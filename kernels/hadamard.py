"""The orthonormal Hadamard transform of rows: butterflies, then a Paley matrix where the size needs one."""

from __future__ import annotations

from flexllm_allo import meta_elif, meta_else, meta_if, params, template
from flexllm_allo.ir.types import UInt, float32
from flexllm_allo.paley import hadamard_base, hadamard_matrix

K, M, R, N = params("K, M, R, N")


@template(R, N)
def butterfly(X: float32[N], Y: float32[N]):
    """Sums of neighbours to the first half of Y, their differences to the second.

    Each stage moves one bit of the index from the lowest place to the highest, so that the partners of
    the next stage are neighbours again: all stages are one kernel. `R` keeps the engine for blocks of R rows
    apart from others.
    """
    for i in range(N // 2, name="pair"):
        a: float32 = X[2 * i]
        b: float32 = X[2 * i + 1]
        Y[i] = a + b
        Y[N // 2 + i] = a - b


@template(K, R, N)
def butterflies(X: float32[N]) -> float32[N]:
    """K stages, which take turns: each reads one of two buffers and writes the other."""
    Y: float32[N]
    other: float32[N]
    with meta_if(K == 0):
        for i in range(N, name="copy"):
            Y[i] = X[i]
    with meta_elif(K % 2 == 1):
        butterfly[R](X, Y)
    with meta_else():
        butterfly[R](X, other)
        butterfly[R](other, Y)
    with meta_if(K > 2):
        for _ in range((K - 1) // 2, name="stage"):
            butterfly[R](Y, other)
            butterfly[R](other, Y)
    return Y


@template(M, N)
def base_product(X: float32[N]) -> float32[N]:
    """Every M neighbours times the Hadamard matrix of size M, put back to their places.

    After the butterflies, neighbour c of group j is element j of block c.
    """
    Y: float32[N]
    plus: UInt(1)[M, M] = hadamard_matrix(M).T > 0
    for j in range(N // M, name="group"):
        total: float32[M] = 0.0
        for c in range(M, name="term"):
            x: float32 = X[j * M + c]
            for b in range(M, name="base"):
                total[b] += x if plus[c, b] else -x
        for b_keep in range(M, name="keep"):
            Y[b_keep * (N // M) + j] = total[b_keep]
    return Y


@template(R, N)
def hadamard(X: float32[R, N]) -> float32[R, N]:
    """Rows times the orthonormal Hadamard matrix of size N = M * 2^K, bit for bit `quant.hadamard_transform`.

    K stages of N / 2 butterflies, then M terms per element where N is no power of two, then one
    multiplication by N^-0.5. Elements come and go in order, and rows may overlap: one comes, one is
    transformed, one goes.
    """
    Y: float32[R, N]
    for r in range(R, name="row"):
        row: float32[N]
        for i_in in range(N, name="load"):
            row[i_in] = X[r, i_in]
        sums = butterflies[hadamard_base(N)[1], R](row)
        with meta_if(hadamard_base(N)[0] == 1):
            for i in range(N, name="scale"):
                Y[r, i] = sums[i] * N**-0.5
        with meta_else():
            product = base_product[hadamard_base(N)[0]](sums)
            for i in range(N, name="scale"):
                Y[r, i] = product[i] * N**-0.5
    return Y
