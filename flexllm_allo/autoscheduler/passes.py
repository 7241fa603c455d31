"""``allo.autoscheduler.passes``: importable; the search needs a commercial ILP solver."""

from ..lazy import unsupported

REASON = "the autoscheduler needs a commercial ILP solver"
INSTEAD = "apply primitives by hand, or one of flexllm_allo.schedules"
dataflow_optimization_pass = unsupported("dataflow_optimization_pass", REASON, INSTEAD)
