"""Whether two schedules compute the same: by construction, or by running both on random arguments."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend.containers import container, is_bfloat16
from .errors import FlexError
from .ir import nodes as ir
from .ir.dtypes import DType, Float
from .ir.walk import walk
from .schedule.schedule import Schedule

SEED = 20240229


def equivalent(schedule_a: Schedule, schedule_b: Schedule, runs: int) -> bool:
    """See `flexllm_allo.verify.verify`."""
    a, b = schedule_a.program, schedule_b.program
    top_a, top_b = a.function(a.top), b.function(b.top)
    if _signature(top_a) != _signature(top_b):
        return False
    if schedule_a.original == schedule_b.original and schedule_a.trace == schedule_b.trace:
        return True
    # The interpreter checks every access, which compiled code does not.
    checked = _follows_data(a) or _follows_data(b)
    name = ("interpreter", "Interpreter") if checked else ("llvm", "LLVMModule")
    module = getattr(import_module(f"flexllm_allo.backend.{name[0]}"), name[1])
    first, second = module(a), module(b)
    random = np.random.default_rng(SEED)
    for _ in range(runs):
        arguments = [_random(buffer, random) for buffer in top_a.inputs]
        others = [np.copy(x) for x in arguments]
        if not _same(_outcome(first, arguments), _outcome(second, others)):
            return False
    return True


def _signature(function: ir.Function) -> tuple[object, ...]:
    return function.results, tuple((p.dtype, p.shape, p.depth) for p in function.params)


def _random(buffer: ir.Buffer, random: np.random.Generator) -> NDArray[Any]:
    dtype = buffer.dtype
    if isinstance(dtype, Float):
        kind = np.dtype(np.float32) if is_bfloat16(dtype) else container(dtype)
        return np.asarray(random.standard_normal(buffer.shape)).astype(kind)
    if dtype.is_fixed:
        return random.standard_normal(buffer.shape) * 2.0 ** (dtype.bits - dtype.fracs - 2)
    return _random_integers(dtype, buffer.shape, random)


def _random_integers(dtype: DType, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """Small numbers, because sizes, indices and divisors are integers too; they still overflow in sums."""
    if container(dtype).fields:
        data = random.integers(0, 256, (*shape, container(dtype).itemsize), np.uint8)
        return data.view(container(dtype)).reshape(shape)
    low, high = (-100, 100) if dtype.signed else (0, 200)
    limit = 1 << min(dtype.bits - (1 if dtype.signed else 0), 8)
    values = random.integers(max(low, -limit), min(high, limit), shape)
    return np.asarray(values).astype(container(dtype))


def _outcome(module: Any, arguments: list[NDArray[Any]]) -> list[Any]:
    """Results and arguments after a call; of a refused call the code of the error."""
    try:
        results = module(*arguments)
    except FlexError as error:
        return [error.code]
    return [*(results if isinstance(results, list) else [results]), *arguments]


def _follows_data(program: ir.Program) -> bool:
    """Whether values in memory decide which element is accessed: arbitrary ones may lead out of bounds."""
    for function in program.functions:
        for node in walk(function.body):
            if any(isinstance(n, ir.Load) for i in getattr(node, "indices", ()) for n in walk(i)):
                return True
    return False


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        x is y or np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(left, right, strict=True)
    )
