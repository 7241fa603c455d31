"""``allo.backend.tapa``: pieces of TAPA projects, under Allo's path."""

from __future__ import annotations

from ..ir import nodes as ir
from .hls.tapa_project import tapa_project


def codegen_tapa_host(top: str, module: ir.Program) -> str:
    """The host program of a design: it loads the data, starts the top task and compares the results."""
    return tapa_project(module.with_top(top)).files["tapa_host.cpp"].decode()


def codegen_host(top: str, module: ir.Program) -> str:
    """`codegen_tapa_host`; one program serves simulation and card."""
    return codegen_tapa_host(top, module)


__all__ = ["codegen_host", "codegen_tapa_host"]
