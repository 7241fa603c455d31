"""The processes of a region in an order in which they can run one after the other."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from . import nodes as ir
from .channels import channel_name, endpoints


def producers_first(program: ir.Program) -> ir.Program:
    """The program with the instances of every region ordered such that streams are written before read.

    C simulation runs processes one after the other.  Instances on a cycle of streams keep their order.
    """
    for region in program.functions:
        if not region.concurrent:
            continue
        first = [s for s in region.body if isinstance(s, ir.Alloc)]
        rest = [s for s in region.body if not isinstance(s, ir.Alloc)]
        body: list[ir.Stmt] = list(first)
        for is_instance, run in groupby(rest, lambda s: isinstance(s, ir.Call) and bool(s.label)):
            stmts = list(run)
            calls = [s for s in stmts if isinstance(s, ir.Call)]
            body += _ordered(calls, program) if is_instance else stmts
        program = program.with_function(replace(region, body=tuple(body)))
    return program


def _ordered(calls: Sequence[ir.Call], program: ir.Program) -> Sequence[ir.Call]:
    """The calls with producers before consumers, otherwise in their order."""
    writers: dict[str, int] = {}
    readers: dict[str, int] = {}
    for i, call in enumerate(calls):
        callee = program.function(call.func)
        ends = endpoints(callee, program.functions)
        for param, arg in zip(callee.params, call.args, strict=True):
            writes, reads = ends.get(param.name, (None, None))
            if isinstance(arg, ir.View) and param.is_stream:
                writers.update({channel_name(arg): i} if writes else {})
                readers.update({channel_name(arg): i} if reads else {})
    after: dict[int, set[int]] = {i: set() for i in range(len(calls))}
    for channel, reader in readers.items():
        if channel in writers:
            after[writers[channel]].add(reader)
    waits = [sum(i in others for others in after.values()) for i in range(len(calls))]
    ready = [i for i, count in enumerate(waits) if count == 0]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for i in after[order[-1]]:
            waits[i] -= 1
            if waits[i] == 0:
                heapq.heappush(ready, i)
    return [calls[i] for i in order] if len(order) == len(calls) else calls


__all__ = ["producers_first"]
