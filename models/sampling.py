"""How the next token is chosen, and the same choice in NumPy: the oracle of `kernels.sampling`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import UsageError
from flexllm_allo.kernels.sampling import CANDIDATES
from flexllm_allo.models.expf import expf


@dataclass(frozen=True)
class Sampling:
    """Parameters of a run, as `kernels.sampling` defines them. The default is greedy.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: candidates, at most `CANDIDATES`; 0 for all of these.
        top_p: the share of the candidates' probability that is drawn from, above 0 and at most 1.
        seed: 32 bits; the same seed and prompt give the same text.

    Raises:
        UsageError: FX703, a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "temperature": (isfinite(self.temperature) and self.temperature >= 0, "0 (greedy) or more"),
            "top_k": (0 <= self.top_k <= CANDIDATES, f"0 (as many as possible) to {CANDIDATES}"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "seed": (-(2**31) <= self.seed < 2**32, "32 bits"),
        }
        for name, (fits, hint) in allowed.items():
            if not fits:
                raise UsageError("FX703", f"{name} cannot be {getattr(self, name)}", hint=f"{name}: {hint}")

    def limited(self, candidates: int) -> Sampling:
        """The same for a design that looks at so many candidates.

        Raises:
            UsageError: FX703, more are asked for.
        """
        if self.top_k > candidates:
            hint = f"top_k: 0 (as many as possible) to {candidates} with this design"
            raise UsageError("FX703", f"top_k cannot be {self.top_k}", hint=hint)
        return self if self.top_k or candidates == CANDIDATES else replace(self, top_k=candidates)

    def arguments(self) -> dict[str, Any]:
        """Arguments of `generate`, `prefill` and `decode` by name."""
        return asdict(self) | {"seed": (self.seed + 2**31) % 2**32 - 2**31}


def uniform(seed: int, position: int) -> np.float32:
    """A multiple of 2^-24 in [0, 1) from integers alone."""
    h = _mix((_mix(seed % 2**32) + position * 0x9E3779B9) % 2**32)
    return np.float32(h >> 8) * np.float32(2.0**-24)


def _mix(h: int) -> int:
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def choose(logits: NDArray[np.float32], sampling: Sampling, position: int) -> int:
    """The token at `position` after logits [V]; a tie goes to the smallest token id."""
    greedy = sampling.temperature == 0
    limit = 1 if greedy else min(sampling.top_k or CANDIDATES, CANDIDATES)
    index = np.argsort(-logits, kind="stable")[:limit]
    value = logits[index]
    heat = np.float32(1 if greedy else sampling.temperature)
    upto = np.cumsum(expf((value - value[0]) / heat), dtype=np.float32)
    inside = np.concatenate(([True], upto[:-1] < np.float32(sampling.top_p) * upto[-1]))
    mass = upto[inside][-1]
    threshold = uniform(sampling.seed, position) * mass
    passed = (upto[:-1] <= threshold) & (upto[:-1] < mass)
    return int(index[passed.sum()])
