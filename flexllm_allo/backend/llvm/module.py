"""A program compiled for the CPU, ready to call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from ...ir import nodes as ir
from ..arguments import Bound, bind, unbind
from ..effects import Effects
from ..signature import Signature
from .emitter import Emitter, entry_name
from .jit import Compiled, Entry
from .loop_order import contiguous_loops


class LLVMModule(Signature):
    """Runs a program as machine code: ``LLVMModule(program)(A, B)``.

    Each function is compiled to machine code at its first call, several at once by `prepare`; what LLVM
    cannot express is refused before.  Calls from several threads run in parallel.
    """

    def __init__(
        self, program: ir.Program, top_func_name: str | None = None, ext_libs: object = None
    ) -> None:
        del ext_libs  # Allo's list of C++ libraries; here they are functions of the program
        self.program = program = program.with_top(top_func_name)
        self._effects = Effects(program)
        self._ordered = contiguous_loops(program)
        self._functions: dict[str, _Function] = {}
        self._function(program.top)

    def __call__(self, *args: object) -> Any:
        return self.call(self.program.top, *args)

    def call(self, name: str, *args: object) -> Any:
        """Call one function of the program; the calling convention is `arguments`.

        Raises:
            DeadlockError: the processes of a dataflow region wait for each other.
        """
        function = self._function(name)
        bound = bind(function.function, args, function.stored)
        function.run(bound)
        return unbind(bound)

    def prepare(self, *names: str) -> None:
        """Make the machine code of these functions now rather than at their first call.

        What several of them call is compiled once.
        """
        missing = [n for n in names if n not in self._functions or not self._functions[n].unit.is_compiled]
        if missing:
            self._emit(*missing)
            self._function(missing[0]).unit.compiled  # noqa: B018

    @property
    def ir(self) -> str:
        """The LLVM text of the top function and all it calls, before optimisation."""
        return self._function(self.program.top).unit.text

    @property
    def optimised(self) -> str:
        """The same after optimisation."""
        return self._function(self.program.top).unit.compiled.optimised

    def _function(self, name: str) -> _Function:
        if name not in self._functions:
            self._emit(name)
        return self._functions[name]

    def _emit(self, *names: str) -> None:
        unit = _Unit(self._ordered, names)
        for name in names:
            stored = self._effects.stored(self.program.function(name))
            self._functions[name] = _Function(self._ordered, name, stored, unit)


class _Unit:
    """Functions that are compiled together, and their callees: LLVM text, then machine code."""

    def __init__(self, program: ir.Program, names: Sequence[str]) -> None:
        emitter = Emitter(program, *names)
        self.text = emitter.text()
        self.sites = emitter.sites
        self._lock = Lock()
        self._compiled: Compiled | None = None

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def compiled(self) -> Compiled:
        if self._compiled is not None:
            return self._compiled
        with self._lock:
            if self._compiled is None:
                self._compiled = Compiled(self.text)
            return self._compiled


class _Function:
    """One function that can be called."""

    def __init__(self, program: ir.Program, name: str, stored: frozenset[str], unit: _Unit) -> None:
        self._program = program
        self.function = program.function(name)
        self.stored = stored
        self.unit = unit
        self._pointers = ctypes.c_void_p * len(self.function.params)

    @cached_property
    def _entry(self) -> Entry:
        return self.unit.compiled.entry(entry_name(self.function.name))

    def run(self, bound: Bound) -> None:
        # Twice as fast as `raw.ctypes.data`, and small arrays feel it.
        pointers = self._pointers(*(raw.__array_interface__["data"][0] for raw in bound.raws))
        state = np.zeros(self.unit.sites.state_size, np.int64)
        entry, pool = self._entry, self.unit.compiled.pool
        if pool is not None:
            pool.wake()
        if entry(pointers, state.__array_interface__["data"][0]):
            raise self.unit.sites.deadlock(self._program, state)
