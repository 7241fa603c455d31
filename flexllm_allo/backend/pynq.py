"""``allo.backend.pynq``: importable; PYNQ overlays are not written by this engine."""

from ..lazy import unsupported

INSTEAD = 'build with target="vitis_hls"'
codegen_host = unsupported("codegen_host", "there is no PYNQ target", INSTEAD)
codegen_bd = unsupported("codegen_bd", "there is no PYNQ target", INSTEAD)
codegen_tcl = unsupported("codegen_tcl", "there is no PYNQ target", INSTEAD)
