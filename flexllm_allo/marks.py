"""The mark by which the compiler recognises what a kernel may call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def intrinsic(name: str) -> Callable[[F], F]:
    """Mark a function as known to the compiler under `name`."""

    def mark(fn: F) -> F:
        fn.__intrinsic__ = name  # type: ignore[attr-defined]
        return fn

    return mark
