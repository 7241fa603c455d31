"""From Python source to the IR."""

from ..lazy import lazy

__getattr__ = lazy(__name__, {"from_pytorch": "pytorch"})
