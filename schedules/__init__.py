"""Schedules: plain functions that turn a kernel into hardware for one purpose, with parameters.

`prefill` and `decode` shape the same kernels for the two stages of inference, `cpu` for running a
design here. A function takes a `Schedule` and applies primitives to it; nothing in it depends on a
model. Each module ends in a function that collects them into a `Stage`, what a hybrid top takes.
"""
