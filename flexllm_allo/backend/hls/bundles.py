"""AXI bundles of the top function: which arguments may share a port, and sharing when there are too many."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from ...errors import BackendError
from ...hardware.devices import Device
from ...ir import nodes as ir
from ...ir.walk import walk
from ..effects import Effects
from .placement import SELDOM

Pairs = set[frozenset[str]]


def concurrent_pairs(program: ir.Program) -> Pairs:
    """Pairs of parameters of the top function that processes of one dataflow region access at once.

    Such arguments need ports of their own: a port serves one process at a time.
    """
    effects = Effects(program)
    done: dict[str, Pairs] = {}
    for function in program.functions:  # callees first
        arrays = {b.name for b in function.params if b.shape and not b.is_stream}
        pairs: Pairs = set()
        for call in (n for n in walk(function.body) if isinstance(n, ir.Call)):
            callee = program.function(call.func)
            given = {
                p.name: a.buffer
                for p, a in zip(callee.params, call.args, strict=True)
                if isinstance(a, ir.View) and a.buffer in arrays
            }
            inner = (pair for pair in done[call.func] if pair <= given.keys())
            pairs |= {frozenset(given[name] for name in pair) for pair in inner}
        if function.dataflow or function.concurrent:
            uses = [effects.of_body((stmt,)) for stmt in function.body]
            touched = [(use.reads | use.writes) & arrays for use in uses]
            pairs |= {frozenset((a, b)) for i, j in combinations(touched, 2) for a in i for b in j if a != b}
        done[function.name] = {pair for pair in pairs if len(pair) == 2}
    return done[program.top]


def shared_bundles(
    program: ir.Program, device: Device, sizes: Mapping[str, int], traffic: Mapping[str, int]
) -> dict[str, str]:
    """The bundle of every memory argument, as few shared as the ports of the card ask for.

    The least busy arguments share first; arguments of one bundle lie in one memory channel.

    Args:
        sizes, traffic: bytes by argument, held and moved per call.

    Raises:
        BackendError: FX402, the card has not enough ports.
    """
    groups = [[name] for name in sizes]
    ports = device.ports
    if ports is not None and len(groups) > ports:
        apart = concurrent_pairs(program)
        while len(groups) > ports:
            pair = _lightest_pair(groups, apart, device, sizes, traffic)
            if pair is None:
                raise BackendError(
                    "FX402",
                    f"the design needs {len(groups)} memory ports, {len(groups) - ports} more than "
                    f"{device.name} has ({ports}), and no more of its arguments can share one",
                    hint="choose a recipe with fewer arrays per weight",
                )
            first, second = pair
            groups.remove(second)
            groups[groups.index(first)] = first + second
    order = list(sizes)
    groups.sort(key=lambda group: order.index(group[0]))
    return {name: f"gmem{i}" for i, group in enumerate(groups) for name in group}


def _lightest_pair(
    groups: list[list[str]],
    apart: Pairs,
    device: Device,
    sizes: Mapping[str, int],
    traffic: Mapping[str, int],
) -> tuple[list[str], list[str]] | None:
    """The two groups that may share and move least."""

    def moved(group: list[str]) -> int:
        return sum(traffic.get(name, 0) for name in group)

    def fit(a: list[str], b: list[str]) -> bool:
        """In a channel of the first memory; of the second if one is larger, and both are read seldom."""
        held = [sum(sizes[name] for name in group) for group in (a, b)]
        if device.second is None or max(held) <= device.memory.channel_bytes:
            return sum(held) <= device.memory.channel_bytes
        return sum(held) <= device.second.channel_bytes and (moved(a) + moved(b)) * SELDOM < sum(held)

    by_load = sorted(groups, key=moved)
    fits = (
        (a, b)
        for a, b in combinations(by_load, 2)
        if fit(a, b) and not any(frozenset((x, y)) in apart for x in a for y in b)
    )
    return min(fits, key=lambda pair: moved(pair[0]) + moved(pair[1]), default=None)
