"""CPU execution: IR to LLVM text, optimised and compiled in the process by llvmlite."""

from ...lazy import unsupported
from .module import LLVMModule

invoke_mlir_parser = unsupported(
    "invoke_mlir_parser", "programs are not kept as MLIR text", "customize the kernel, or print s.module"
)

__all__ = ["LLVMModule", "invoke_mlir_parser"]
