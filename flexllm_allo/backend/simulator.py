"""``allo.backend.simulator``: the module that runs dataflow designs, under Allo's path."""

from __future__ import annotations

from ..ir import nodes as ir
from ..lazy import lazy
from .llvm import LLVMModule

__getattr__ = lazy(__name__, {"LLVMOMPModule": "backend.llvm:LLVMModule"})


def build_dataflow_simulator(module: ir.Program, top_func_name: str | None = None) -> LLVMModule:
    """A module that runs the processes of a dataflow design with bounded FIFOs, in this process."""
    return LLVMModule(module, top_func_name)
