"""Prefill: a block of tokens times a group of output channels in parallel.

Every weight read meets all tokens of the block, so the linear layers become `token_parallel` x
`weight_parallel` multiply-accumulate arrays.
"""

from __future__ import annotations

from .common import Parallelism, stage

spatial = stage("prefill", Parallelism, streams=True, spatial=True, overlapped=True)
"""Operators that work at the same time, each on another block; so do rows of a Hadamard transform."""

temporal = stage("prefill", Parallelism, streams=False, spatial=False)
"""Operators, and rows of a Hadamard transform, that take turns."""

overlapped = stage("prefill", Parallelism, streams=True, spatial=False, overlapped=True)
"""As `spatial`, with rows of a Hadamard transform that take turns, each on several lanes."""
