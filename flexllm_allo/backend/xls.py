"""``allo.backend.xls``: importable; Google XLS is not a target of this engine."""

from ..lazy import unsupported


def is_available() -> bool:
    """Always False, so that programs for XLS skip themselves."""
    return False


XLSCCModule = unsupported("XLSCCModule", "Google XLS is not a target", 'build with target="vitis_hls"')
