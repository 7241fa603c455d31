"""Kernels run by the interpreter and by LLVM, which must agree bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

import flexllm_allo as allo


def agree(kernel: Any, *args: Any, **options: Any) -> Any:
    """The result of a kernel, or its array arguments afterwards when it returns nothing."""
    schedule = allo.customize(kernel, **options)
    seen: list[Any] = []
    for target in ("interpreter", None):
        mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        result = schedule.build(target=target)(*mine)
        arrays = [a for a in mine if isinstance(a, np.ndarray)]
        seen.append((result, arrays))
    (first, first_arrays), (second, second_arrays) = seen
    assert same(first, second), (first, second)
    assert same(first_arrays, second_arrays), (first_arrays, second_arrays)
    return first_arrays if first is None else first


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
