"""Regions on every engine: what the tests of dataflow share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import flexllm_allo.dataflow as df
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError

try:
    find_compiler()
    COMPILER = True
except ToolError:
    COMPILER = False

Region = Callable[..., Any]


def modules(region: Region, csim: bool = False) -> list[Any]:
    """The interpreter, the simulator, and C simulation of both flows if asked for."""
    s = df.customize(region)
    made = [s.build("interpreter"), df.build(region, target="simulator")]
    if csim and COMPILER:
        made.append(df.build(region, target="vitis_hls", mode="csim", project=None))
        made.append(df.build(region, target="tapa", mode="csim", project=None))
    return made


def check(region: Region, *args: Any, expect: list[Any], csim: bool = False) -> None:
    """Every engine leaves `expect` in the last arguments."""
    for module in modules(region, csim):
        mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        module(*mine)
        for got, wanted in zip(mine[len(mine) - len(expect) :], expect, strict=True):
            np.testing.assert_array_equal(got, wanted)


def ints(*shape: int) -> np.ndarray:
    """Small numbers, the same in every run."""
    return np.random.default_rng(0).integers(-9, 9, shape).astype(np.int32)
