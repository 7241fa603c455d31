"""FlexLLM-Allo: LLM accelerators as Python kernels and reusable schedules."""

__version__ = "0.1.0"
