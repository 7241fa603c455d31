"""The scheduled program as MLIR text: affine, scf, memref, arith, math and func."""

from .module import to_mlir

__all__ = ["to_mlir"]
