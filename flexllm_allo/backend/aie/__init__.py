"""``allo.backend.aie``: AMD's NPU is not a target of this engine; its programs import and skip."""

from ...lazy import lazy, unsupported
from .external_kernel import ExternalModule

REASON = "AMD's NPU is not a target"


def is_available() -> bool:
    """Always False, so that programs for the NPU skip themselves."""
    return False


AIE_MLIRModule = unsupported("AIE_MLIRModule", REASON)
__getattr__ = lazy(__name__, {"vliw": "."})

__all__ = ["AIE_MLIRModule", "ExternalModule", "is_available"]
