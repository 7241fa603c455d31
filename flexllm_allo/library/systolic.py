"""Output-stationary systolic arrays: C = A B in tiles of Mt x Nt processing elements (PEs).

Each PE multiplies what passes it, hands A to the right and B down, and keeps its sum. `schedule_systolic`
turns the links between PEs into FIFOs. The packed arrays read and write several values per memory word.
"""

from __future__ import annotations

from .. import Schedule, dsl, params, template
from ..ir import nodes as ir
from ..ir.types import Int, UInt, index, int8, int16, int32
from ..ir.walk import walk
from ..schedule.trace import MockBuffer

TyA, TyB, TyC, M, K, N, Mt, Nt, P = params("TyA, TyB, TyC, M, K, N, Mt, Nt, P")


# ----------------------------------------------------------------------------------- elements


@template(TyA, TyB, TyC, K, M, N)
def PE_kernel(A_in: TyA[K], B_in: TyB[K], A_out: TyA[K], B_out: TyB[K], C: TyC[M, N], i: index, j: index):
    """C[i, j] = sum_k A[k] B[k], passing both operands on."""
    total: TyC = 0
    for k in dsl.grid(K, name="reduction"):
        a: TyA = A_in[k]
        b: TyB = B_in[k]
        total += a * b
        A_out[k] = a
        B_out[k] = b
    C[i, j] = total


@template(K, M, N)
def PE_kernel_packed_int8xint8(
    A_in: int8[K], B_in: int16[K], A_out: int8[K], B_out: int16[K], C: int32[M, N], i: index, j: index
):
    """Two columns: B holds b1 in the high byte, b0 in the low one; C[i, 2j] and C[i, 2j + 1] are written.

    One product a * (b1 * 2**16 + b0) holds both a * b1 and a * b0: the low 16 bits are a * b0, and the high
    ones are a * b1, less one when a * b0 is negative (Xilinx WP486: INT8 on DSP slices, 2017).
    """
    low: int32 = 0
    high: int32 = 0
    for k in dsl.grid(K, name="reduction"):
        a: int8 = A_in[k]
        b: int16 = B_in[k]
        b0: int8 = b
        b1: Int(24) = b >> 8
        both: Int(33) = a * ((b1 << 16) + b0)
        c0: int16 = both
        low += c0
        high += (both >> 16) + both[15]
        A_out[k] = a
        B_out[k] = b
    C[i, 2 * j] = low
    C[i, 2 * j + 1] = high


@template(K, M, N)
def PE_kernel_packed_int4xint8(
    A_in: int8[K], B_in: int8[K], A_out: int8[K], B_out: int8[K], C: int32[M, N], i: index, j: index
):
    """As `PE_kernel_packed_int8xint8` with two int4 weights in each byte of B and 8-bit activations in A."""
    low: int32 = 0
    high: int32 = 0
    for k in dsl.grid(K, name="reduction"):
        a: int8 = A_in[k]
        b: int8 = B_in[k]
        b0: Int(4) = b
        b1: Int(16) = b >> 4
        both: Int(25) = a * ((b1 << 12) + b0)
        c0: Int(12) = both
        low += c0
        high += (both >> 12) + both[11]
        A_out[k] = a
        B_out[k] = b
    C[i, 2 * j] = low
    C[i, 2 * j + 1] = high


# -------------------------------------------------------------------------------------- tiles


@template(TyA, TyB, TyC, K, Mt, Nt)
def systolic_tile(A: TyA[Mt, K], B: TyB[K, Nt], C: TyC[Mt, Nt]):
    """One tile of C on Mt x Nt PEs; the FIFO A_fifo[i] runs along row i, B_fifo[j] down column j."""
    A_fifo: TyA[Mt, Nt + 1, K]
    B_fifo: TyB[Nt, Mt + 1, K]
    A_drain: TyA[Mt]
    B_drain: TyB[Nt]
    for k in dsl.grid(K, name="data_load"):
        for m in dsl.grid(Mt):
            A_fifo[m, 0, k] = A[m, k]
        for n in dsl.grid(Nt):
            B_fifo[n, 0, k] = B[k, n]
    for i, j in dsl.grid(Mt, Nt, name="PE"):
        PE_kernel[TyA, TyB, TyC, K, Mt, Nt](
            A_fifo[i, j], B_fifo[j, i], A_fifo[i, j + 1], B_fifo[j, i + 1], C, i, j
        )
    for k in dsl.grid(K, name="data_drain"):
        for m in dsl.grid(Mt):
            A_drain[m] = A_fifo[m, Nt, k]
        for n in dsl.grid(Nt):
            B_drain[n] = B_fifo[n, Mt, k]


@template(K, Mt, Nt, where=("Nt % 2 == 0",))
def packed_int8xint8_systolic_tile(A: int8[Mt, K], B: int16[K, Nt // 2], C: int32[Mt, Nt]):
    """`systolic_tile` of PEs that compute two columns each."""
    A_fifo: int8[Mt, Nt // 2 + 1, K]
    B_fifo: int16[Nt // 2, Mt + 1, K]
    A_drain: int8[Mt]
    B_drain: int16[Nt // 2]
    for k in dsl.grid(K, name="data_load"):
        for m in dsl.grid(Mt):
            A_fifo[m, 0, k] = A[m, k]
        for n in dsl.grid(Nt // 2):
            B_fifo[n, 0, k] = B[k, n]
    for i, j in dsl.grid(Mt, Nt // 2, name="PE"):
        PE_kernel_packed_int8xint8[K, Mt, Nt](
            A_fifo[i, j], B_fifo[j, i], A_fifo[i, j + 1], B_fifo[j, i + 1], C, i, j
        )
    for k in dsl.grid(K, name="data_drain"):
        for m in dsl.grid(Mt):
            A_drain[m] = A_fifo[m, Nt // 2, k]
        for n in dsl.grid(Nt // 2):
            B_drain[n] = B_fifo[n, Mt, k]


# ------------------------------------------------------------------------------------- arrays


@template(TyA, TyB, TyC, M, K, N, Mt, Nt, where=("M % Mt == 0", "N % Nt == 0"))
def systolic(A: TyA[M, K], B: TyB[K, N], C: TyC[M, N]):
    """C = A B, tile after tile; what C held is overwritten."""
    local_A: TyA[Mt, K]
    local_B: TyB[K, Nt]
    local_C: TyC[Mt, Nt]
    for mi, ni in dsl.grid(M // Mt, N // Nt, name="outer_tile"):
        for ak, ai in dsl.grid(K, Mt, name="load_A_tile"):
            local_A[ai, ak] = A[mi * Mt + ai, ak]
        for bk, bj in dsl.grid(K, Nt, name="load_B_tile"):
            local_B[bk, bj] = B[bk, ni * Nt + bj]
        systolic_tile[TyA, TyB, TyC, K, Mt, Nt](local_A, local_B, local_C)
        for sj, si in dsl.grid(Nt, Mt, name="store_C_tile"):
            C[mi * Mt + si, ni * Nt + sj] = local_C[si, sj]


@template(
    TyA, TyB, TyC, M, K, N, Mt, Nt, P,
    where=("M % Mt == 0", "N % Nt == 0", "Mt % P == 0", "Nt % P == 0"),
)  # fmt: skip
def packed_systolic(
    A: Int(TyA.bits * P)[M // P, K], B: Int(TyB.bits * P)[K, N // P], C: Int(TyC.bits * P)[M // P, N]
):
    """C = A B with P values per word, the first lowest: of A and C along rows, of B along columns."""
    local_A: TyA[Mt, K]
    local_B: TyB[K, Nt]
    local_C: TyC[Mt, Nt]
    for mi, ni in dsl.grid(M // Mt, N // Nt, name="outer_tile"):
        for ak, ai in dsl.grid(K, Mt // P, name="load_A_tile"):
            a: Int(TyA.bits * P) = A[mi * (Mt // P) + ai, ak]
            for ap in dsl.grid(P):
                local_A[ai * P + ap, ak] = a >> (ap * TyA.bits)
        for bk, bj in dsl.grid(K, Nt // P, name="load_B_tile"):
            b: Int(TyB.bits * P) = B[bk, ni * (Nt // P) + bj]
            for bp in dsl.grid(P):
                local_B[bk, bj * P + bp] = b >> (bp * TyB.bits)
        systolic_tile[TyA, TyB, TyC, K, Mt, Nt](local_A, local_B, local_C)
        for sj, si in dsl.grid(Nt, Mt // P, name="store_C_tile"):
            c: UInt(TyC.bits * P) = 0
            for sp in dsl.grid(P):
                field: UInt(TyC.bits) = local_C[si * P + P - 1 - sp, sj]
                c = (c << TyC.bits) | field
            C[mi * (Mt // P) + si, ni * Nt + sj] = c


@template(
    M, K, N, Mt, Nt, P,
    where=("M % Mt == 0", "N % Nt == 0", "Mt % P == 0", "Nt % P == 0", "P % 2 == 0"),
)  # fmt: skip
def packed_int8xint8_systolic(A: Int(8 * P)[M // P, K], B: Int(8 * P)[K, N // P], C: Int(8 * P)[M // P, N]):
    """`packed_systolic` of int8 with two products per multiplier; sums are exact, then wrap to int8."""
    local_A: int8[Mt, K]
    local_B: int16[K, Nt // 2]
    local_C: int32[Mt, Nt]
    for mi, ni in dsl.grid(M // Mt, N // Nt, name="outer_tile"):
        for ak, ai in dsl.grid(K, Mt // P, name="load_A_tile"):
            a: Int(8 * P) = A[mi * (Mt // P) + ai, ak]
            for ap in dsl.grid(P):
                local_A[ai * P + ap, ak] = a >> (ap * 8)
        for bk, bj in dsl.grid(K, Nt // P, name="load_B_tile"):
            b: Int(8 * P) = B[bk, ni * (Nt // P) + bj]
            for bp in dsl.grid(P // 2):
                local_B[bk, bj * (P // 2) + bp] = b >> (bp * 16)
        packed_int8xint8_systolic_tile[K, Mt, Nt](local_A, local_B, local_C)
        for sj, si in dsl.grid(Nt, Mt // P, name="store_C_tile"):
            c: UInt(8 * P) = 0
            for sp in dsl.grid(P):
                field: UInt(8) = local_C[si * P + P - 1 - sp, sj]
                c = (c << 8) | field
            C[mi * (Mt // P) + si, ni * Nt + sj] = c


# ----------------------------------------------------------------------------------- schedule


def schedule_systolic(s: Schedule) -> Schedule:
    """One column of A and one row of B per cycle, all PEs at once, FIFOs between neighbours."""
    tile = _callee(s, s.top_func)
    pe = _callee(s, tile)
    sizes = dict(tile.bindings)
    s.partition(s.local_C)
    s.partition(s.local_A, dim=1)
    s.partition(s.local_B, dim=2)
    for loop in ("ak", "bk", "sj", f"{pe.name}:k"):
        s.pipeline(loop)
    s.fuse("mi", "ni")
    axes = s.unfold(f"{tile.name}:PE", [0, 1])
    s.to(MockBuffer(tile.name, "A_fifo"), axes, axis=1, depth=sizes["Mt"] + 1)
    s.to(MockBuffer(tile.name, "B_fifo"), axes, axis=1, depth=sizes["Nt"] + 1)
    return s


def _callee(s: Schedule, caller: ir.Function) -> ir.Function:
    """The one function that a function calls."""
    return s.program.function(next(n.func for n in walk(caller.body) if isinstance(n, ir.Call)))


SCHEDULES = {
    systolic: schedule_systolic,
    packed_systolic: schedule_systolic,
    packed_int8xint8_systolic: schedule_systolic,
}

__all__ = [
    "PE_kernel",
    "PE_kernel_packed_int4xint8",
    "PE_kernel_packed_int8xint8",
    "packed_int8xint8_systolic",
    "packed_int8xint8_systolic_tile",
    "packed_systolic",
    "schedule_systolic",
    "systolic",
    "systolic_tile",
]
