"""LLM operators as plain typed kernels: one source for prefill, decode and every schedule.

A kernel sees logical tensors, a block of `T` tokens at a time (`T` is 1 in decode). How it becomes
hardware is said elsewhere, in `schedules`. Loops carry the names those schedules refer to.
"""
