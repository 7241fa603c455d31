"""Estimates of scheduled designs: cycles, resources, bandwidth, power, and what binds."""
