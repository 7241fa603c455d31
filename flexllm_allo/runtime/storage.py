"""What arrays are kept in, after everything else is scheduled: banks and FIFOs are known then."""

from __future__ import annotations

from dataclasses import dataclass

from ..estimate.ports import bank_depth
from ..ir import nodes as ir
from ..ir.walk import allocations
from ..schedule.schedule import Schedule

LEAST_BITS = 16
"""Narrower elements would leave most of the 72 bits of an UltraRAM empty."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the tools do not decide.

    Attributes:
        uram_depth: arrays of at least so many elements in a bank are in UltraRAM; 0: none.
        lutram_bits: arrays of at most so many bits in a bank are in LUTs; 0: what the tools put there.
    """

    uram_depth: int = 0
    lutram_bits: int = 0

    def resource(self, array: ir.Buffer) -> str | None:
        """The memory of a local array, if it is not left to the tools."""
        depth, bits = bank_depth(array), array.dtype.bits
        if self.uram_depth and bits >= LEAST_BITS and depth >= self.uram_depth:
            return "URAM"
        return "LUTRAM" if depth > 1 and depth * bits <= self.lutram_bits else None


def store_arrays(schedule: Schedule, storage: Storage) -> None:
    """Keep the arrays of all functions where `storage` says."""
    for function in schedule.program.functions if storage != Storage() else ():
        arrays = [a.buffer for a in allocations(function) if a.buffer.shape]
        for array in arrays:
            resource = None if array.is_stream else storage.resource(array)
            if resource is not None:
                schedule.bind_storage(f"{function.name}:{array.name}", resource)


__all__ = ["Storage", "store_arrays"]
