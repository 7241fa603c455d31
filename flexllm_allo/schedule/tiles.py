"""Tiles of an array that one nest sums up and the next one uses: both at work, each on another tile."""

from __future__ import annotations

from ..ir.walk import buffers
from .names import find_loop
from .nests import extent
from .schedule import Schedule
from .trace import MockBuffer


def sum_tiles(s: Schedule, array: MockBuffer, nest: str, outer: str, along: str, size: int) -> None:
    """Hold `size` elements along a loop in registers, no wider than needed, while they are summed up.

    All that is done to a tile becomes one statement, so that it can be a process. The nest's other loops
    may be vectorized behind this; `use_tiles` comes last.

    Args:
        array: what the nest sums up, indexed by its loops `outer` and `along`.
    """
    s.split(f"{nest}.{along}", size)
    s.reorder(f"{nest}.{along}.outer", f"{nest}.{outer}")
    s.buffer_at(array, f"{nest}.{along}.outer")
    if not buffers(s.top_func)[array.name].dtype.is_float:
        s.narrow(f"{array.name}_buf")
    s.split(f"{nest}.{along}.outer", 1)
    s.pipeline(f"{outer}_init")
    s.pipeline(f"{outer}_back")


def use_tiles(
    s: Schedule, array: MockBuffer, nests: tuple[str, str], outer: str, along: str, size: int, lanes: int
) -> None:
    """Use each tile while the next one is summed up: no more of the array is kept than two tiles.

    Args:
        nests: the one that `sum_tiles` was applied to, and the one that uses the array.
        lanes: elements of a tile that are used per cycle.
    """
    summed, used = nests
    s.partition(array, dim=2)
    s.split(f"{used}.{along}", size)
    s.reorder(f"{used}.{along}.outer", f"{used}.{outer}")
    s.vectorize(f"{used}.{along}.inner", lanes)
    s.compute_at(f"{summed}.{along}.outer.outer", f"{used}.{along}.outer")
    s.store_at(array, f"{used}.{along}.outer")
    s.dataflow(f"{used}.{along}.outer")


def in_tiles(s: Schedule, outer: str, along: str, size: int) -> None:
    """Elements in the order in which `use_tiles` leaves them, if there are several whole tiles; 0: none."""
    lines, channels = (extent(find_loop(s.program, s.top_func_name, loop).loop) for loop in (outer, along))
    if lines and channels and lines > 1 and 0 < size < channels and channels % size == 0:
        s.split(along, size)
        s.reorder(f"{along}.outer", outer)
    s.pipeline()


def wide(s: Schedule, loop: str, lanes: int) -> None:
    """A loop on `lanes` lanes, for every 4,096 iterations that it has."""
    s.vectorize(loop, lanes * max(1, (extent(find_loop(s.program, s.top_func_name, loop).loop) or 0) // 4096))
    s.pipeline()


__all__ = ["in_tiles", "sum_tiles", "use_tiles", "wide"]
