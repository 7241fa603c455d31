"""Prefill: a block of tokens times a group of output channels in parallel.

Every weight read meets all tokens of the block, so the linear layers become `token_parallel` x
`weight_parallel` multiply-accumulate arrays.
"""

from __future__ import annotations

from .common import Parallelism, stage

spatial = stage("prefill", Parallelism, streams=True, spatial=True, overlapped=True)
"""Operators, and stages of the Hadamard transform, that work at the same time, each on another block."""

temporal = stage("prefill", Parallelism, streams=False, spatial=False)
"""Operators, and stages of the Hadamard transform, that take turns."""

overlapped = stage("prefill", Parallelism, streams=True, spatial=False, overlapped=True)
"""As `spatial`, with one engine for all stages of a Hadamard transform."""
