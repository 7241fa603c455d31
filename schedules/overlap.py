"""Operators as processes that work at the same time, each on another block of tokens."""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.analysis.accesses import accesses
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers

from .common import innermost


def overlap(s: Schedule) -> None:
    """The calls of a function as processes; what several of them read is copied for each.

    While one works on a block, those before it have the next ones. A function that changes an array in place
    has no such form and keeps its calls one after the other.
    """
    innermost(s)
    shared = _shared(s)
    if shared is not None:
        for name in shared:
            s.duplicate(name)
            _copy(s, name)
        s.dataflow()


def _shared(s: Schedule) -> list[str] | None:
    """The arrays that several statements read, in order; None if one is written by more than one."""
    readers, writers = dict[str, int](), dict[str, int]()
    for stmt in s.top_func.body:
        if not isinstance(stmt, ir.Alloc):
            uses = list(accesses((stmt,), s.program))
            for counts, kind in ((readers, False), (writers, True)):
                for name in dict.fromkeys(a.buffer for a in uses if a.write is kind):
                    counts[name] = counts.get(name, 0) + 1
    arrays = {n for n, b in buffers(s.top_func).items() if b.shape and not b.is_stream}
    if any(writers.get(name, 0) > 1 for name in arrays):
        return None
    return [name for name, count in readers.items() if count > 1 and name in arrays]


def _copy(s: Schedule, name: str) -> None:
    """An element per cycle, or a column of all tokens where every token has a bank of its own."""
    buffer = buffers(s.top_func)[name]
    if len(buffer.shape) == 2 and any(b.kind == "complete" and b.dim == 1 for b in buffer.banks):
        s.reorder(f"{name}_d1", f"{name}_d0")
        s.unroll(f"{name}_d0")
        s.pipeline(f"{name}_d1")
    else:
        s.pipeline(f"{name}_d{len(buffer.shape) - 1}")
