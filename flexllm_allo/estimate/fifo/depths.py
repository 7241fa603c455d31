"""How deep FIFOs must be: not to deadlock, and not to slow the design.

A run with deeper FIFOs never ends later and never deadlocks where a shallower one does not, so a single
depth is found by bisection.  For all together the least single depths (the others without limit) are
tried first: where they are enough, no smaller ones are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from itertools import count

from .compiled import table
from .fifos import UNLIMITED, Depths, Key
from .network import network
from .simulate import Deadlock, Simulator, simulate
from .steps import Behaviour

MOST = 512  # combinations of depths that are tried for the least sum

SHORT, LONG = 1000, 1 << 23  # tokens: below, compiling does not pay; above, what repeats is skipped

Fits = Callable[[Mapping[Key, int]], bool]
"""Whether these depths are enough, the others without limit."""


class Runs:
    """Runs of one function with different depths: by compiled code where they are long."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        made = table(behaviour)
        self.table = made if made is not None and SHORT < sum(made.tokens) < LONG else None

    def cycles(self, given: Mapping[Key, int]) -> int | None:
        """The cycles with these depths, the others without limit; None: it deadlocks."""
        depths = Depths(given, unlimited=True)
        if self.table is not None:
            return self.table.cycles(depths)
        try:
            return simulate(self.behaviour, depths).cycles
        except Deadlock:
            return None

    def ends(self, given: Mapping[Key, int]) -> bool:
        """Whether it ends with these depths, the others without limit."""
        return self.cycles(given) is not None

    def most(self) -> dict[Key, int]:
        """The streams, and the most tokens that one FIFO of each takes.

        Raises:
            Deadlock: not even FIFOs without limit let it end.
        """
        tokens: dict[Key, int] = {}
        if self.table is not None and self.ends({}):
            for (key, _), puts in zip(self.table.streams, self.table.tokens, strict=True):
                tokens[key] = max(tokens.get(key, 1), puts)
            return tokens
        simulator = Simulator(UNLIMITED, skip=True)
        simulator.run(self.behaviour)
        for fifo in simulator.fifos:
            tokens[fifo.key] = max(tokens.get(fifo.key, 1), fifo.puts)
        return tokens


def blocked_at(behaviour: Behaviour, depths: Depths) -> Deadlock | None:
    """The deadlock with these depths, if there is one."""
    try:
        simulate(behaviour, depths)
    except Deadlock as deadlock:
        return deadlock
    return None


def safe_depths(behaviour: Behaviour) -> dict[Key, int]:
    """The least depths that do not deadlock: of the least sum, if few streams depend on each other.

    Raises:
        Deadlock: no depths help.
    """
    net = network(behaviour)
    free = dict.fromkeys(net.declared, 1)
    cyclic = net.cyclic()
    if not cyclic:
        return free
    runs = Runs(behaviour)
    most = {key: n for key, n in runs.most().items() if key in cyclic}
    least = _singles(most, runs.ends)
    return free | (_summed(behaviour, least) or _lowered(most, least, runs.ends))


def fast_depths(behaviour: Behaviour) -> dict[Key, int]:
    """Depths with which the design takes no longer than with FIFOs without limit; none can be less.

    Raises:
        Deadlock: no depths help.
    """
    runs = Runs(behaviour)
    most = runs.most()
    goal = runs.cycles({})
    assert goal is not None

    def fast(given: Mapping[Key, int]) -> bool:
        cycles = runs.cycles(given)
        return cycles is not None and cycles <= goal

    least = _singles(most, fast)
    return least if fast(least) else _lowered(most, least, fast)


def freeing_depths(behaviour: Behaviour, declared: Mapping[Key, int]) -> dict[Key, int]:
    """The streams to deepen, and how far, so that a run that deadlocks ends: one if one is enough.

    Raises:
        Deadlock: no depths help.
    """
    runs = Runs(behaviour)
    most = runs.most()
    stuck = blocked_at(behaviour, Depths(declared, unlimited=True))
    assert stuck is not None
    single: list[tuple[int, Key, int]] = []
    for key in sorted(stuck.full):
        if runs.ends({**declared, key: most[key]}):
            depth = least_such(lambda d, key=key: runs.ends({**declared, key: d}), declared[key], most[key])
            single.append((depth - declared[key], key, depth))
    if single:
        _, key, depth = min(single)
        return {key: depth}
    upper = {key: max(most[key], depth) for key, depth in declared.items()}
    found = _summed(behaviour, declared) or _lowered(upper, declared, runs.ends)
    return {key: depth for key, depth in found.items() if depth > declared[key]}


def least_such(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least number of `low` .. `high` for which a monotonous condition holds; it does for `high`."""
    step = 1
    while low < high:
        middle = min(low + step - 1, (low + high) // 2)
        if holds(middle):
            high = middle
        else:
            low = middle + 1
            step *= 2
    return low


def _singles(most: Mapping[Key, int], fits: Fits) -> dict[Key, int]:
    """The least depth of each stream, all others without limit."""
    return {key: least_such(lambda d, key=key: fits({key: d}), 1, most[key]) for key in most}


def _lowered(most: Mapping[Key, int], least: Mapping[Key, int], fits: Fits) -> dict[Key, int]:
    """Depths of which none can be less, between two bounds; streams with the most to save come first."""
    found = dict(most)
    for key in sorted(most, key=lambda key: (least[key] - most[key], key)):
        found[key] = least_such(lambda d, key=key: fits({**found, key: d}), least[key], found[key])
    return found


def _summed(behaviour: Behaviour, start: Mapping[Key, int]) -> dict[Key, int] | None:
    """The depths of the least sum, from `start` up, that do not deadlock; None after many tries.

    Of the streams that are full in a deadlock one must be deeper, whatever the depths of the others.
    """
    keys = sorted(start)
    order = count()
    first = tuple(start[key] for key in keys)
    heap = [(sum(first), next(order), first)]
    seen = {first}
    for _ in range(MOST):
        total, _, depths = heapq.heappop(heap)
        given = dict(zip(keys, depths, strict=True))
        stuck = blocked_at(behaviour, Depths(given, unlimited=True))
        if stuck is None:
            return given
        for i, key in enumerate(keys):
            deeper = (*depths[:i], depths[i] + 1, *depths[i + 1 :])
            if key in stuck.full and deeper not in seen:
                seen.add(deeper)
                heapq.heappush(heap, (total + 1, next(order), deeper))
    return None


__all__ = ["Runs", "blocked_at", "fast_depths", "freeing_depths", "safe_depths"]
