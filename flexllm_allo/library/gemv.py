"""Matrix times vector on a row of processing elements, P rows of the matrix per memory word."""

from __future__ import annotations

from .. import Schedule, dsl, params, template
from ..ir.types import Int, index, int8
from ..schedule.trace import MockBuffer

L, D, P = params("L, D, P")


@template(L, P)
def pe_kernel(x_in: int8[L], y_in: int8[L], y_out: int8[L], o: int8[P], p: index):
    """o[p] = sum of x y in int8 (it wraps), passing y on."""
    total: int8 = 0
    for l in dsl.grid(L, name="reduction"):
        y: int8 = y_in[l]
        total += x_in[l] * y
        y_out[l] = y
    o[p] = total


@template(L, D, P)
def mat_vec_tile(x: int8[P, L], y_in: int8[L], o: int8[P]):
    """P rows at once: row p on PE p, the vector running along `y_fifo`."""
    x_fifo: int8[P, L]
    y_fifo: int8[P + 1, L]
    y_drain: int8[1]
    for l in dsl.grid(L, name="data_load"):
        for n in dsl.grid(P):
            x_fifo[n, l] = x[n, l]
        y_fifo[0, l] = y_in[l]
    for p in dsl.grid(P, name="PE"):
        pe_kernel[L, P](x_fifo[p], y_fifo[p], y_fifo[p + 1], o, p)
    for l in dsl.grid(L, name="data_drain"):
        y_drain[0] = y_fifo[P, l]


@template(L, D, P, where=("D % P == 0",))
def int8xint8_mat_vec(x_in: Int(8 * P)[D // P, L], y_in: int8[L], out: int8[D]):
    """out = X y for X [D, L] of int8; word [d, l] holds X[d P + p, l] in byte p. Sums wrap to int8."""
    local_x: int8[P, L]
    local_o: int8[P]
    for d in dsl.grid(D // P, name="outer"):
        for l in dsl.grid(L, name="load"):
            word: Int(8 * P) = x_in[d, l]
            for xp in dsl.grid(P):
                local_x[xp, l] = word >> (xp * 8)
        mat_vec_tile[L, D, P](local_x, y_in, local_o)
        for op in dsl.grid(P, name="store"):
            out[d * P + op] = local_o[op]


def schedule_int8xint8_mat_vec(s: Schedule) -> Schedule:
    """One element of the vector per cycle meets P rows; PEs pass it on through FIFOs."""
    tile = next(f for f in s.program.functions if f.origin == "mat_vec_tile")
    pe = next(f for f in s.program.functions if f.origin == "pe_kernel")
    s.partition(s.local_x, dim=1)
    s.partition(s.local_o)
    for loop in ("l", "op", f"{pe.name}:l"):
        s.pipeline(loop)
    axes = s.unfold(f"{tile.name}:PE", [0])
    s.to(MockBuffer(tile.name, "x_fifo"), axes, axis=0, depth=2)
    s.to(MockBuffer(tile.name, "y_fifo"), axes, axis=0, depth=2)
    return s


SCHEDULES = {int8xint8_mat_vec: schedule_int8xint8_mat_vec}

__all__ = ["int8xint8_mat_vec", "mat_vec_tile", "pe_kernel", "schedule_int8xint8_mat_vec"]
