"""``allo.backend.catapult``: importable; projects for Catapult are not written by this engine."""

from ..lazy import unsupported

INSTEAD = 'build with target="vitis_hls"'
codegen_host = unsupported("codegen_host", "there is no Catapult target", INSTEAD)
codegen_tcl = unsupported("codegen_tcl", "there is no Catapult target", INSTEAD)
