"""``allo.autoscheduler``: its configuration is accepted; the search needs a commercial solver."""

from ..lazy import lazy

__getattr__ = lazy(__name__, dict.fromkeys(("config", "dfg", "passes", "primitives", "util"), "."))
