"""Large arrays in UltraRAM, after everything else is scheduled: banks and FIFOs are known then."""

from __future__ import annotations

from ..estimate.ports import bank_depth
from ..ir import nodes as ir
from ..ir.walk import walk
from ..schedule.schedule import Schedule

LEAST_BITS = 16
"""Narrower elements would leave most of the 72 bits of an UltraRAM empty."""


def store_in_uram(schedule: Schedule, depth: int) -> None:
    """Keep every array whose banks have at least `depth` elements in UltraRAM; 0: none."""
    for function in schedule.program.functions if depth else ():
        arrays = [n.buffer for n in walk(function.body) if isinstance(n, ir.Alloc) and n.buffer.shape]
        for b in arrays:
            if not b.is_stream and b.dtype.bits >= LEAST_BITS and bank_depth(b) >= depth:
                schedule.bind_storage(f"{function.name}:{b.name}", "URAM")


__all__ = ["store_in_uram"]
