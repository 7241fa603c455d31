"""The orthonormal Hadamard transform of rows: butterflies, then a Paley matrix where the size needs one."""

from __future__ import annotations

from flexllm_allo import meta_else, meta_if, params, template
from flexllm_allo.ir.types import UInt, float32
from flexllm_allo.paley import hadamard_base, hadamard_matrix

K, M, R, N = params("K, M, R, N")


@template(R, N)
def butterfly(X: float32[R, N]) -> float32[R, N]:
    """Sums of neighbours in the first half of a row, their differences in the second.

    Each stage moves one bit of the index from the lowest place to the highest, so that the partners of
    the next stage are neighbours again: all stages are one kernel, and elements come and go in order.
    """
    Y: float32[R, N]
    for r in range(R, name="row"):
        late: float32[N // 2]
        for i in range(N // 2, name="pair"):
            a: float32 = X[r, 2 * i]
            b: float32 = X[r, 2 * i + 1]
            Y[r, i] = a + b
            late[i] = a - b
        for i_late in range(N // 2, name="late"):
            Y[r, N // 2 + i_late] = late[i_late]
    return Y


@template(M, R, N)
def hadamard_finish(X: float32[R, N]) -> float32[R, N]:
    """Every M neighbours times the Hadamard matrix of size M, put back to their places, times N^-0.5.

    After the butterflies, neighbour c of group j is element j of block c.
    """
    Y: float32[R, N]
    with meta_if(M == 1):
        for r in range(R, name="row"):
            for i in range(N, name="scale"):
                Y[r, i] = X[r, i] * N**-0.5
    with meta_else():
        plus: UInt(1)[M, M] = hadamard_matrix(M).T > 0
        for r in range(R, name="row"):
            row: float32[N]
            for j in range(N // M, name="group"):
                total: float32[M] = 0.0
                for c in range(M, name="term"):
                    x: float32 = X[r, j * M + c]
                    for b in range(M, name="base"):
                        total[b] += x if plus[c, b] else -x
                for b_keep in range(M, name="keep"):
                    row[b_keep * (N // M) + j] = total[b_keep]
            for i in range(N, name="scale"):
                Y[r, i] = row[i] * N**-0.5
    return Y


@template(K, R, N)
def hadamard_stages(X: float32[R, N]) -> float32[R, N]:
    """The last K stages of butterflies and what follows them."""
    with meta_if(K == 0):
        Y = hadamard_finish[hadamard_base(N)[0]](X)
        return Y
    with meta_else():
        half = butterfly(X)
        Y = hadamard_stages[K - 1](half)
        return Y


@template(R, N)
def hadamard(X: float32[R, N]) -> float32[R, N]:
    """Rows times the orthonormal Hadamard matrix of size N = M * 2^K, bit for bit `quant.hadamard_transform`.

    K stages of N / 2 butterflies, then M terms per element where N is no power of two, then one
    multiplication by N^-0.5.
    """
    Y = hadamard_stages[hadamard_base(N)[1]](X)
    return Y
