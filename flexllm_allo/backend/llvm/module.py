"""A program compiled for the CPU, ready to call."""

from __future__ import annotations

import ctypes
from threading import Lock
from typing import Any

import numpy as np

from ...ir import nodes as ir
from ..arguments import Bound, bind, unbind
from ..effects import Effects
from ..signature import Signature
from .emitter import ENTRY, Emitter
from .jit import Compiled
from .loop_order import contiguous_loops


class LLVMModule(Signature):
    """Runs a program as machine code: ``LLVMModule(program)(A, B)``.

    Each function is compiled to machine code at its first call; what LLVM cannot express is
    refused before.  Calls from several threads run in parallel.
    """

    def __init__(
        self, program: ir.Program, top_func_name: str | None = None, ext_libs: object = None
    ) -> None:
        del ext_libs  # Allo's list of C++ libraries; here they are functions of the program
        self.program = program = program.with_top(top_func_name)
        self._effects = Effects(program)
        self._ordered = contiguous_loops(program)
        self._compiled: dict[str, _Function] = {}
        self._function(program.top)

    def __call__(self, *args: object) -> Any:
        return self.call(self.program.top, *args)

    def call(self, name: str, *args: object) -> Any:
        """Call one function of the program; the calling convention is `arguments`.

        Raises:
            DeadlockError: the processes of a dataflow region wait for each other.
        """
        compiled = self._function(name)
        bound = bind(compiled.function, args, compiled.stored)
        compiled.run(bound)
        return unbind(bound)

    def prepare(self, *names: str) -> None:
        """Make the machine code of these functions now rather than at their first call."""
        for name in names:
            self._function(name).compiled  # noqa: B018

    @property
    def ir(self) -> str:
        """The LLVM text of the top function and all it calls, before optimisation."""
        return self._function(self.program.top).text

    @property
    def optimised(self) -> str:
        """The same after optimisation."""
        return self._function(self.program.top).compiled.optimised

    def _function(self, name: str) -> _Function:
        if name not in self._compiled:
            stored = self._effects.stored(self.program.function(name))
            self._compiled[name] = _Function(self._ordered, name, stored)
        return self._compiled[name]


class _Function:
    """One function and its callees: LLVM text, then machine code."""

    def __init__(self, program: ir.Program, name: str, stored: frozenset[str]) -> None:
        self._program = program
        self.function = program.function(name)
        self.stored = stored
        emitter = Emitter(program, name)
        self.text = emitter.text()
        self._sites = emitter.sites
        self._lock = Lock()
        self._compiled: Compiled | None = None
        self._pointers = ctypes.c_void_p * len(self.function.params)

    @property
    def compiled(self) -> Compiled:
        if self._compiled is not None:
            return self._compiled
        with self._lock:
            if self._compiled is None:
                self._compiled = Compiled(self.text, ENTRY)
            return self._compiled

    def run(self, bound: Bound) -> None:
        # Twice as fast as `raw.ctypes.data`, and small arrays feel it.
        pointers = self._pointers(*(raw.__array_interface__["data"][0] for raw in bound.raws))
        state = np.zeros(self._sites.state_size, np.int64)
        if self.compiled.pool is not None:
            self.compiled.pool.wake()
        if self.compiled.entry(pointers, state.__array_interface__["data"][0]):
            raise self._sites.deadlock(self._program, state)
