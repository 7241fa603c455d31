"""``allo.autoscheduler.dfg``: importable; the graph belongs to the search."""

from ..lazy import unsupported
from .passes import INSTEAD, REASON

DFG = unsupported("DFG", REASON, INSTEAD)
