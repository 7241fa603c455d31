"""The intermediate representation; the types are reachable here as well, as in Allo."""

from ..lazy import lazy
from .types import *  # noqa: F403

__getattr__ = lazy(__name__, dict.fromkeys(("transform", "utils"), "."))
