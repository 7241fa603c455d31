"""Runs exported MLIR with upstream MLIR (the torch-mlir wheel; no torch needed).

In a process of its own: the wheel carries an LLVM next to llvmlite's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from math import prod
from typing import Any

import numpy as np

from flexllm_allo.backend.arguments import bind, unbind
from flexllm_allo.backend.containers import width
from flexllm_allo.backend.effects import Effects
from flexllm_allo.ir import nodes as ir

PIPELINE = (
    "builtin.module(lower-affine,arith-expand,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-math-to-llvm,convert-math-to-libm,convert-arith-to-llvm,finalize-memref-to-llvm,"
    "convert-index-to-llvm,convert-func-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)"
)


@cache
def _worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def run(program: ir.Program, text: str, *args: object) -> Any:
    """Parse, verify, lower and call the top function of an export."""
    function = program.function(program.top)
    bound = bind(function, args, Effects(program).stored(function))
    by_value = [not b.shape and b in function.inputs for b in function.params]
    for buffer, raw in zip(function.params, bound.raws, strict=True):
        _set_spare_bits(buffer, raw, zero=True)
    after = _worker().submit(_execute, text, program.top, bound.raws, by_value).result()
    for buffer, raw, new in zip(function.params, bound.raws, after, strict=True):
        raw[...] = new
        _set_spare_bits(buffer, raw, zero=False)
    return unbind(bound)


def _set_spare_bits(buffer: ir.Buffer, raw: np.ndarray, zero: bool) -> None:
    """LLVM keeps the bits above an odd width zero; our containers keep them as the extension."""
    spare = 8 * raw.dtype.itemsize - width(buffer.dtype)
    if raw.dtype.kind in "iu" and spare:
        view = raw.view(f"u{raw.dtype.itemsize}") if zero else raw
        view[...] = (view << spare) >> spare


def _execute(
    text: str, top: str, raws: tuple[np.ndarray, ...], by_value: list[bool]
) -> tuple[np.ndarray, ...]:
    from torch_mlir import ir as mlir
    from torch_mlir.execution_engine import ExecutionEngine
    from torch_mlir.passmanager import PassManager

    with mlir.Context():
        module = mlir.Module.parse(text)
        assert module.operation.verify()
        PassManager.parse(PIPELINE).run(module.operation)
        engine = ExecutionEngine(module, opt_level=2)
        arguments = [_argument(raw, scalar) for raw, scalar in zip(raws, by_value, strict=True)]
        engine.invoke(top, *(ctypes.pointer(a) for a in arguments))
    return raws


def _argument(raw: np.ndarray, scalar: bool) -> Any:
    """The value of a scalar, or a memref descriptor."""
    if scalar:
        return (ctypes.c_char * raw.itemsize).from_buffer_copy(raw.tobytes())
    sizes = ctypes.c_longlong * max(raw.ndim, 1)
    fields = [("base", ctypes.c_void_p), ("data", ctypes.c_void_p), ("offset", ctypes.c_longlong)]
    fields += [("shape", sizes), ("strides", sizes)] if raw.ndim else []
    descriptor = type("Memref", (ctypes.Structure,), {"_fields_": fields})()
    descriptor.base = descriptor.data = raw.ctypes.data
    if raw.ndim:
        descriptor.shape = sizes(*raw.shape)
        descriptor.strides = sizes(*(prod(raw.shape[d + 1 :]) for d in range(raw.ndim)))
    return ctypes.pointer(descriptor)
