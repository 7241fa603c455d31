"""What analyses find out about an immutable node, kept with that node for as long as it lives.

A primitive replaces few nodes of a program; whatever was found out about the others still holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

_R = TypeVar("_R")


class _Node(Protocol):
    @property
    def facts(self) -> dict[Any, Any]: ...


_N = TypeVar("_N", bound=_Node)


def remembered(analysis: Callable[[_N], _R]) -> Callable[[_N], _R]:
    """Make a function of one node (`Program`, `Function`, `For`) that is computed once per node.

    The result belongs to all callers: they must not change it.
    """

    @wraps(analysis)
    def recall(node: _N) -> _R:
        facts = node.facts
        if analysis not in facts:
            facts[analysis] = analysis(node)
        return facts[analysis]

    return recall


__all__ = ["remembered"]
