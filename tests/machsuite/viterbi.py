"""The most likely path of states, in negative logarithms."""

from itertools import pairwise

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64, int32

OBS, STATES, TOKENS = 7, 3, 5


def viterbi(
    obs: int32[OBS], init: float64[STATES], transition: float64[STATES, STATES],
    emission: float64[STATES, TOKENS], path: int32[OBS],
):  # fmt: skip
    llike: float64[OBS, STATES]
    for s in range(STATES, name="init"):
        llike[0, s] = init[s] + emission[s, obs[0]]
    for t in range(1, OBS, name="step"):
        for curr in range(STATES):
            min_p: float64 = llike[t - 1, 0] + transition[0, curr] + emission[curr, obs[t]]
            for prev in range(1, STATES):
                p: float64 = llike[t - 1, prev] + transition[prev, curr] + emission[curr, obs[t]]
                if p < min_p:
                    min_p = p
            llike[t, curr] = min_p
    best: int32 = 0
    for s in range(1, STATES, name="end"):
        if llike[OBS - 1, s] < llike[OBS - 1, best]:
            best = s
    path[OBS - 1] = best
    for r in range(OBS - 1, name="back"):
        t: int32 = OBS - 2 - r
        low: int32 = 0
        for s in range(1, STATES):
            if llike[t, s] + transition[s, path[t + 1]] < llike[t, low] + transition[low, path[t + 1]]:
                low = s
        path[t] = low


def check():
    rng = np.random.default_rng(5)
    init, transition, emission = (
        rng.random(STATES),
        rng.random((STATES, STATES)),
        rng.random((STATES, TOKENS)),
    )
    obs, path = rng.integers(0, TOKENS, OBS).astype(np.int32), np.zeros(OBS, np.int32)
    allo.customize(viterbi).build()(obs, init, transition, emission, path)

    def cost(states):
        steps = sum(transition[a, b] for a, b in pairwise(states))
        return init[states[0]] + steps + sum(emission[s, o] for s, o in zip(states, obs, strict=True))

    every = min(cost(p) for p in map(list, np.ndindex(*[STATES] * OBS)))
    np.testing.assert_allclose(cost(list(path)), every)
