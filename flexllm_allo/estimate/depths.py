"""How deep FIFOs must be: not to deadlock, and not to slow the design.

A run with deeper FIFOs never ends later and never deadlocks where a shallower one does not, so a single
depth is found by bisection.  For all together the least single depths (the others without limit) are
tried first: where they are enough, no smaller ones are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count

from .fifos import Depths, Key
from .simulate import Deadlock, Simulator
from .steps import Behaviour

MOST = 512  # combinations of depths that are tried for the least sum


def streams_of(behaviour: Behaviour) -> dict[Key, int]:
    """The streams made in a run of a function, and the most tokens one FIFO of each takes.

    Raises:
        Deadlock: not even FIFOs without limit let it end.
    """
    simulator = Simulator(Unlimited(), skip=True)
    simulator.run(behaviour)
    tokens: dict[Key, int] = {}
    for fifo in simulator.fifos:
        tokens[fifo.key] = max(tokens.get(fifo.key, 0), fifo.puts)
    return tokens


class Unlimited(dict[Key, int | None]):
    """Depths of which those that are not given have no limit."""

    def get(self, key: Key, default: object = None) -> int | None:  # pyright: ignore
        return self[key] if key in self else None


def blocked_at(behaviour: Behaviour, depths: Depths) -> Deadlock | None:
    """The deadlock with these depths, if there is one."""
    try:
        Simulator(depths, skip=True).run(behaviour)
    except Deadlock as deadlock:
        return deadlock
    return None


def safe_depths(behaviour: Behaviour) -> dict[Key, int]:
    """The least depths that do not deadlock: of the least sum, if few streams depend on each other.

    Raises:
        Deadlock: no depths help.
    """
    most = streams_of(behaviour)
    least = {key: _single(behaviour, key, most[key], _ends) for key in most}
    return _least_sum(behaviour, least) or _lowered(most, least, lambda d: _ends(behaviour, d))


def fast_depths(behaviour: Behaviour) -> dict[Key, int]:
    """Depths with which the design takes no longer than with FIFOs without limit; none can be less.

    Raises:
        Deadlock: no depths help.
    """
    most = streams_of(behaviour)
    goal = Simulator(Unlimited(), skip=True).run(behaviour).cycles

    def fast(behaviour: Behaviour, depths: Depths) -> bool:
        try:
            return Simulator(depths, skip=True).run(behaviour).cycles <= goal
        except Deadlock:
            return False

    least = {key: _single(behaviour, key, most[key], fast) for key in most}
    if fast(behaviour, Unlimited(least)):
        return least
    return _lowered(most, least, lambda depths: fast(behaviour, depths))


def freeing_depths(behaviour: Behaviour, declared: dict[Key, int]) -> dict[Key, int]:
    """The streams to deepen, and how far, so that a run that deadlocks ends: one if one is enough.

    Raises:
        Deadlock: no depths help.
    """
    most = streams_of(behaviour)
    stuck = blocked_at(behaviour, Unlimited(declared))
    assert stuck is not None
    single: list[tuple[int, Key, int]] = []
    for key in sorted(stuck.full):
        if _ends(behaviour, Unlimited({**declared, key: most[key]})):
            depth = least_such(
                lambda d, key=key: _ends(behaviour, Unlimited({**declared, key: d})), declared[key], most[key]
            )
            single.append((depth - declared[key], key, depth))
    if single:
        _, key, depth = min(single)
        return {key: depth}
    upper = {key: max(depth, declared[key]) for key, depth in most.items()}
    found = _least_sum(behaviour, declared) or _lowered(upper, declared, lambda d: _ends(behaviour, d))
    return {key: depth for key, depth in found.items() if depth > declared[key]}


def least_such(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least number of `low` .. `high` for which a monotonous condition holds; it does for `high`."""
    step = 1
    while low < high:
        middle = min(low + step - 1, (low + high) // 2)
        if holds(middle):
            high = middle
            step = max(1, (high - low + 1) // 2)
        else:
            low = middle + 1
            step *= 2
    return low


def _ends(behaviour: Behaviour, depths: Depths) -> bool:
    return blocked_at(behaviour, depths) is None


def _single(behaviour: Behaviour, key: Key, most: int, fits: Callable[[Behaviour, Depths], bool]) -> int:
    """The least depth of one stream, all others without limit."""
    return least_such(lambda depth: fits(behaviour, Unlimited({key: depth})), 1, max(1, most))


def _least_sum(behaviour: Behaviour, start: dict[Key, int]) -> dict[Key, int] | None:
    """The depths of the least sum, from `start` up, that do not deadlock; None after many tries.

    Of the streams that are full in a deadlock one must be deeper, whatever the depths of the others.
    """
    keys = sorted(start)
    order = count()
    first = tuple(start[key] for key in keys)
    heap = [(sum(first), next(order), first)]
    seen = {first}
    for _ in range(MOST):
        if not heap:
            return None
        total, _, depths = heapq.heappop(heap)
        stuck = blocked_at(behaviour, Unlimited(zip(keys, depths, strict=True)))
        if stuck is None:
            return dict(zip(keys, depths, strict=True))
        for i, key in enumerate(keys):
            if key in stuck.full:
                deeper = (*depths[:i], depths[i] + 1, *depths[i + 1 :])
                if deeper not in seen:
                    seen.add(deeper)
                    heapq.heappush(heap, (total + 1, next(order), deeper))
    return None


def _lowered(most: dict[Key, int], least: dict[Key, int], fits: Callable[[Depths], bool]) -> dict[Key, int]:
    """Depths of which none can be less, between two bounds: one stream after the other."""
    found = {key: max(1, depth) for key, depth in most.items()}
    for key in _narrowest_last(found, least):
        found[key] = least_such(
            lambda depth, key=key: fits(Unlimited({**found, key: depth})), least[key], found[key]
        )
    return found


def _narrowest_last(most: dict[Key, int], least: dict[Key, int]) -> Sequence[Key]:
    """The streams with the most to save first."""
    return sorted(most, key=lambda key: (least[key] - most[key], key))


__all__ = [
    "Unlimited",
    "blocked_at",
    "fast_depths",
    "freeing_depths",
    "least_such",
    "safe_depths",
    "streams_of",
]
