"""CPU execution: IR to LLVM text, optimised and compiled in the process by llvmlite."""

from .module import LLVMModule

__all__ = ["LLVMModule"]
