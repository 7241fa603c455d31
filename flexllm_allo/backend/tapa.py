"""``allo.backend.tapa``: importable; TAPA projects are not written by this engine."""

from ..lazy import unsupported

INSTEAD = 'build with target="vitis_hls"'
codegen_tapa_host = unsupported("codegen_tapa_host", "there is no TAPA target", INSTEAD)
codegen_host = unsupported("codegen_host", "there is no TAPA target", INSTEAD)
