"""LLVM text to machine code in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import llvmlite.binding as llvm  # pyright: ignore[reportMissingTypeStubs]

from ...errors import BackendError
from ..scalars import C_FUNCTIONS, libm_address
from . import threads
from .prelude import library_symbol
from .tiles import DOT_GENERIC, DOT_VNNI, DOT_VNNI_BYTES

_llvm = cast(Any, llvm)

Entry = Callable[[Any, Any], int]
MEMORY_ACCESSES = 200
"""In one basic block, beyond which LLVM orders its instructions by coarser dependences.

Its own limit is 1000. The time to schedule a block is quadratic in them: designs with unrolled loops spend
most of their compilation there. The products of the CPU schedules have fewer, and stay as they are.
"""


@cache
def _initialise() -> None:
    _llvm.initialize_native_target()
    _llvm.initialize_native_asmprinter()
    if _llvm.llvm_version_info[0] <= 22:  # an option that LLVM does not know ends the process
        _llvm.set_option("flexllm", f"-dag-maps-huge-region={MEMORY_ACCESSES}")
    for name in C_FUNCTIONS:
        for single in (True, False):
            _llvm.add_symbol(library_symbol(name, single), libm_address(name, single))


def _wide_vectors(features: Any) -> str:
    """The host's features, with vectors of 512 bits where they cost no clock speed.

    LLVM prefers 256 bits on all of Intel's server processors; from those with VNNI on, gemm of int8
    and float32 is faster by a third to a half with 512.
    """
    return features.flatten() + (",-prefer-256-bit" if features.get("avx512vnni") else "")


class Compiled:
    """A module in machine code; the code lives as long as this object."""

    def __init__(self, text: str) -> None:
        _initialise()
        if _llvm.llvm_version_info[0] < 22:  # where the intrinsic had a result
            text = text.replace("void @llvm.coro.end(", "i1 @llvm.coro.end(")
        features = _llvm.get_host_cpu_features()
        if features.get("avx512vnni"):
            fast = DOT_VNNI if _llvm.llvm_version_info[0] < 22 else DOT_VNNI_BYTES
            text = text.replace(DOT_GENERIC, fast)
        self.pool = threads.pool() if f"call void @{threads.SYMBOL}(" in text else None
        if " half " in text and features.get("f16c") is False:  # LLVM would call a missing library
            raise BackendError("FX403", "float16 needs a processor with F16C", hint="use float32 or bfloat16")
        module = _llvm.parse_assembly(text)
        machine = _llvm.Target.from_default_triple().create_target_machine(
            cpu=_llvm.get_host_cpu_name(),
            features=_wide_vectors(features),
            opt=3,
            jit=True,
        )
        # Not told which integers the machine has, LLVM narrows sums to any width (`register_bits`).
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        module.verify()
        # Level 3 takes three times as long to compile as level 2 and the code is no faster.
        options = _llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = True
        # LLVM's SLP vectoriser narrows what it gathers and forgets the sign: eight of
        # ``uitofp i64 (sext i8 %x to i64)`` become ``uitofp <8 x i32> (sext <8 x i8> %x to <8 x i32>)`` in
        # LLVM 22, which is 2**32 - 1 for -1, and ``uitofp <8 x i8> %x`` in LLVM 20. Neither gemm nor
        # the model was faster with it.
        options.slp_vectorization = False
        passes = _llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        self._module = module
        self._machine = machine
        self._engine = _llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()

    def entry(self, name: str) -> Entry:
        """A function of the module, to be called with the addresses of its arguments and of its state."""
        # A ctypes function releases the interpreter lock while it runs.
        signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
        return cast(Entry, signature(self._engine.get_function_address(name)))

    @property
    def optimised(self) -> str:
        """The LLVM text after optimisation."""
        return str(self._module)

    @property
    def assembly(self) -> str:
        """The machine code as text."""
        return self._machine.emit_assembly(self._module)
