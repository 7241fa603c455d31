"""HLS C++ for Vitis: text, C simulation, projects, tool runs, reports."""

from ...lazy import lazy
from .toolchain import is_available

__getattr__ = lazy(
    __name__,
    {
        "HLSModule": "backend.hls.module",
        "codegen_tcl": "backend.vitis",
        "copy_ext_libs": "backend.vitis",
        "run_process": "backend.hls.toolchain",
        "separate_header": "backend.vitis",
    },
)

__all__ = ["is_available"]
