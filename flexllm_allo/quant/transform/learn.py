"""Learned rotations (SpinQuant, arXiv 2405.16406): Cayley SGD on the loss of the quantized network.

What is learned is kept only if the model is better for it once it is rounded for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..model import FloatModel
from ..passes import Rotate
from ..recipes import Recipe
from .rotation import Rotations, check_folded, random_rotations
from .trial import Trial, is_better

if TYPE_CHECKING:
    from .learn_model import RotatedLlama

Ids = NDArray[np.int64]
Real = NDArray[np.float64]

RATE = 15.0
"""Of the first step, then a cosine down to 0. Most steps end at the bound of `cayley_step` before."""
MOMENTUM = 0.9
BATCH = 2
"""Sequences per step."""
CHECKS = 5
"""How often a run is judged on the sequences kept out of it, besides the start."""


def learn_rotations(
    model: FloatModel,
    recipe: Recipe,
    samples: NDArray[Any],
    pass_: Rotate,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Rotations:
    """R1 and R2 as the pass wants them, learned from the random ones of `random_rotations`.

    A quarter of the sequences (at least one, the last ones; all if there is only one) is kept out of the
    steps. On them the best rotation on the way is found, and then tried against the start on the model as the
    passes behind Rotate round it (`Trial`): it is the result if it is better by more than chance, else the
    start is. torch runs in one thread meanwhile: equal seeds give equal rotations.

    Args:
        model: with folded norms (`fold_norms`). Its weights are held once, and once more rotated.
        recipe: gives the formats of activations, keys and values, and weights; weights stay exact in the
            steps when `Gptq` follows.
        samples: token ids [B, T], T of at least 2.
        pass_: which of `r1`, `r2` are ``learned`` (others stay as they begin), steps and seed.
        on_step: called with step, steps and the loss in nats of the sequences of that step.

    Raises:
        QuantError: FX604, torch is missing, norms are not folded, or an online transform has no size; FX607,
            no sequences to learn from.
    """
    start = random_rotations(model.config, pass_)
    if "learned" not in (pass_.r1, pass_.r2):
        return start
    check_folded(model)
    if samples.ndim != 2 or len(samples) < 1 or samples.shape[1] < 2:
        raise QuantError(
            "FX607",
            f"rotations cannot be learned from token ids of shape {list(samples.shape)}",
            hint="give [B, T]: one sequence or more, each of at least 2 tokens",
        )
    try:
        from .learn_model import RotatedLlama, single_thread
    except ImportError as error:
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r} learns its rotations, which needs torch",
            hint="pip install 'flexllm-allo[hf]', or take Rotate(r1='hadamard', r2='hadamard')",
        ) from error
    tokens, held = _split(np.asarray(samples, np.int64))
    with single_thread():
        network = RotatedLlama.of(model, recipe, start.online, samples.shape[1])
        learned = _Learner(network, tokens, held, start, pass_).run(on_step)
    if learned is start:
        return start
    trial = Trial(model, recipe, samples.astype(np.int32))
    return learned if is_better(trial.losses(learned), trial.losses(start), len(held)) else start


def _split(tokens: Ids) -> tuple[Ids, Ids]:
    """Sequences to learn from, and those to judge on."""
    if len(tokens) == 1:
        return tokens, tokens
    held = max(1, len(tokens) // 4)
    return tokens[:-held], tokens[-held:]


class _Learner:
    """The state of one run: the rotations at hand in float64."""

    def __init__(
        self, network: RotatedLlama, tokens: Ids, held: Ids, start: Rotations, pass_: Rotate
    ) -> None:
        self.network, self.start, self.pass_ = network, start, pass_
        self.tokens, self.held = tokens, held
        self.now = {"r1": start.r1, "r2": start.r2}
        self.learned = tuple(name for name in self.now if getattr(pass_, name) == "learned")

    def run(self, on_step: Callable[[int, int, float], None] | None) -> Rotations:
        """The rotations of least loss on the way, the very start among them."""
        rng = np.random.default_rng(self.pass_.seed)
        momentum = {name: np.zeros_like(self.now[name]) for name in self.learned}
        best, least = self.start, self.held_loss()
        steps = self.pass_.steps
        every = max(1, steps // CHECKS)
        for step in range(steps):
            chosen = rng.permutation(len(self.tokens))[:BATCH]
            loss, gradients = self.network.gradients(self.tokens[chosen], self.now, self.learned)
            rate = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            for name, gradient in gradients.items():
                here = self.now[name]
                assert here is not None
                self.now[name], momentum[name] = cayley_step(here, gradient, momentum[name], rate)
            if (step + 1) % every == 0 or step + 1 == steps:
                held = self.held_loss()
                if held < least:
                    best, least = replace(self.start, r1=self.now["r1"], r2=self.now["r2"]), held
            if on_step:
                on_step(step + 1, steps, loss)
        return best

    def held_loss(self) -> float:
        """Loss on what no step has seen, a few sequences at a time."""
        parts = [self.held[i : i + BATCH] for i in range(0, len(self.held), BATCH)]
        return sum(self.network.evaluate(p, self.now) * len(p) for p in parts) / len(self.held)


def cayley_step(
    r: Real,
    gradient: Real,
    momentum: Real,
    rate: float,
    mu: float = MOMENTUM,
) -> tuple[Real, Real]:
    """One step of gradient descent that stays on the orthogonal matrices.

    With V = mu * momentum - gradient and the skew-symmetric W = (V R^T - R V^T) / 2, the new rotation is
    (I - a/2 W)^-1 (I + a/2 W) R, the Cayley transform in closed form: orthogonal for every a, here
    min(rate, 1 / max column sum of |W|). Source: Li, Fuxin, Todorovic, ICLR 2020 (arXiv 2002.01113).

    Args:
        r, gradient, momentum: [..., n, n], a stack of rotations or one.

    Returns:
        The new rotation and the momentum W R, which is tangent to it.
    """
    velocity = mu * momentum - gradient
    product = velocity @ r.swapaxes(-1, -2)
    skew = (product - product.swapaxes(-1, -2)) / 2
    columns: Real = np.abs(skew).sum(-2).max(-1)
    step = np.minimum(rate, 1 / (columns + 1e-12))[..., None, None] / 2
    eye = np.eye(r.shape[-1])
    turned: Real = np.linalg.solve(eye - step * skew, (eye + step * skew) @ r)  # pyright: ignore
    return turned, skew @ r
