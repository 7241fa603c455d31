"""Hypothesis profiles: `test` in `make test`, `nightly` by HYPOTHESIS_PROFILE=nightly.

`make test` draws the same cases every time, so that a red run speaks of the change at hand; new ones
are drawn at night, and what they find becomes a test of its own.
"""

from __future__ import annotations

import gc
import os

# Tests run in as many processes as there are cores. Threads of each of them would wait for one another's,
# and matrix products of small models take twenty times as long. Read when NumPy and torch are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "test",
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly", parent=settings.get_profile("test"), max_examples=10_000, derandomize=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

LONG = (
    "quant_acceptance", "format_models", "families", "kernels", "recipes", "recipe_commands", "stages",
    "build_robustness", "tapa", "family_checkpoints", "csim", "flexllm", "decode_engine", "examples", "fit",
)  # fmt: skip
"""Files that take longest, longest first: one that starts last would leave the other processes idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """Spare the collector the modules that stay, and most visits to programs: trees without cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
