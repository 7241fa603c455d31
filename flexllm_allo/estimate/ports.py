"""How many elements of a buffer are reached per cycle: storage, banks, ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir import nodes as ir
from ..memory import Memory

Kind = Literal["registers", "ram", "memory", "fifo"]

AXI_LATENCY = 64
"""Cycles from a request to off-chip memory to its answer: `m_axi_latency` of Vitis kernels (UG1399)."""

RAM_LATENCY = 1
URAM_LATENCY = 2
"""Cycles of a read from a block RAM, and from an UltraRAM, which is a cascade of blocks (UG573)."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a buffer lies, and what one of its banks does in a cycle.

    Attributes:
        reads, writes: accesses of a bank per cycle; `shared` if the ports do either. 0: as many as you like.
        read_latency, write_latency: cycles until the value is there.
    """

    kind: Kind
    reads: int = 0
    writes: int = 0
    shared: bool = False
    read_latency: int = 0
    write_latency: int = 0


REGISTERS = Storage("registers")
OFF_CHIP = Storage("memory", 1, 1, False, AXI_LATENCY, AXI_LATENCY)
FIFO = Storage("fifo", 1, 1, False, 1, 1)
_PORTS = {
    "RAM_1P": (1, 1, True), "RAM_S2P": (1, 1, False), "RAM_1WNR": (0, 1, False), "ROM_1P": (1, 0, False),
    "ROM_2P": (2, 0, False), "ROM_NP": (0, 0, False),
}  # fmt: skip


def storage(buffer: ir.Buffer, off_chip: bool = False) -> Storage:
    """What holds a buffer.

    Arrays are in dual-port RAMs, of which every port reads or writes, unless the schedule says otherwise;
    arrays of one element per bank are registers.
    """
    if buffer.is_stream:
        return FIFO
    if off_chip and buffer.shape:
        return OFF_CHIP
    if not buffer.shape or bank_depth(buffer) == 1:
        return REGISTERS
    memory = buffer.memory if isinstance(buffer.memory, Memory) else Memory()
    reads, writes, shared = _PORTS.get(memory.storage_type or "", (2, 2, True))
    latency = URAM_LATENCY if memory.resource == "URAM" else RAM_LATENCY
    return Storage("ram", reads, writes, shared, latency, 1)


def bank_counts(buffer: ir.Buffer) -> tuple[int, ...]:
    """Banks along every dimension."""
    counts = [1] * len(buffer.shape)
    for bank in buffer.banks:
        dims = range(len(counts)) if bank.dim == 0 else (bank.dim - 1,)
        for d in dims:
            if 0 <= d < len(counts):
                counts[d] = buffer.shape[d] if bank.kind == "complete" else min(bank.factor, buffer.shape[d])
    return tuple(counts)


def bank_depth(buffer: ir.Buffer) -> int:
    """Elements of one bank."""
    return prod(-(-size // count) for size, count in zip(buffer.shape, bank_counts(buffer), strict=True))


Numbers = NDArray[Any]


def banks_and_words(buffer: ir.Buffer, indices: Sequence[Numbers]) -> tuple[Numbers, Numbers]:
    """The bank of every access, and the element as one number."""
    bank: Numbers = np.zeros((), np.int64)
    element: Numbers = np.zeros((), np.int64)
    kinds = {b.dim - 1: b.kind for b in buffer.banks}
    whole = kinds.get(-1)
    for d, (size, count) in enumerate(zip(buffer.shape, bank_counts(buffer), strict=True)):
        index: Numbers = indices[d] if d < len(indices) else np.zeros((), np.int64)
        element = element * max(size, 1) + index
        if count > 1:
            kind = kinds.get(d, whole)
            inside = index // -(-size // count) if kind == "block" else index % count
            bank = bank * count + inside
    return bank, element


__all__ = [
    "AXI_LATENCY", "FIFO", "OFF_CHIP", "REGISTERS", "Storage", "bank_counts", "bank_depth", "banks_and_words",
    "storage",
]  # fmt: skip
