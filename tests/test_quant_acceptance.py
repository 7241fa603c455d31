"""The ladder of methods at W4A4 on a model with outlier channels: each rung does what it is there for.

Perplexities of the integer path on the first part of the held-out text; `benchmarks/perplexity.py` has all
of it, and every recipe.
"""

from __future__ import annotations

from contextlib import closing
from functools import cached_property

import numpy as np
import pytest
from quant_models import TINY, UINT4, relative

from flexllm_allo.models import Model, load_checkpoint
from flexllm_allo.models.calibrate import Calibration, calibration_tokens
from flexllm_allo.quant import Recipe, plant_outliers, quantize, recipes
from flexllm_allo.quant.formats import INT4_WEIGHT
from flexllm_allo.quant.passes import FoldNorms, Gptq, Rotate, Rtn, Smooth
from flexllm_allo.runtime.perplexity import text_perplexity
from flexllm_allo.runtime.session import Session

CHARACTERS = 9000  # about 2,800 tokens
FEW, ALL = Calibration(samples=8), Calibration()
# A correction learned on 8 windows may lose on others what it wins on these; on 64 it does not.
RUNGS = {
    "rtn": ((Rtn(),), FEW),
    "gptq": ((Gptq(),), FEW),
    "smooth": ((Smooth(), Rtn()), FEW),
    "hadamard": ((FoldNorms(), Rotate(), Rtn()), FEW),
    "hadamard-gptq": ((FoldNorms(), Rotate(), Gptq()), ALL),
}


class Ladder:
    """Perplexities on the model with planted outliers, each measured once."""

    def __init__(self):
        self.checkpoint = load_checkpoint(TINY)
        self.planted = plant_outliers(self.checkpoint, 0.02, 20.0, inner=10.0)
        self.text = (TINY / "heldout.txt").read_text(encoding="utf-8")[:CHARACTERS]
        self.known = dict[str, float]()

    @cached_property
    def float(self):
        return self.measure(recipes["none"], FEW)

    def __getitem__(self, rung):
        """W4A4 by the passes of a rung, attention and head in float."""
        if rung not in self.known:
            passes, calibration = RUNGS[rung]
            recipe = Recipe(rung, INT4_WEIGHT, UINT4, None, None, passes=passes)
            self.known[rung] = self.measure(recipe, calibration)
        return self.known[rung]

    def predictions(self, recipe, calibration):
        """Logarithms of probabilities float64 [T, V] on windows of the text."""
        ids, samples = self.checkpoint.encode(self.text)[1:], calibration_tokens(self.checkpoint, calibration)
        with closing(Session(Model(self.checkpoint, quantize(self.planted, recipe, samples)))) as session:
            windows = [[0, *ids[at : at + 255]] for at in range(0, len(ids), 255)]
            logits = np.concatenate([session.logits(w) for w in windows]).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def measure(self, recipe, calibration):
        samples = calibration_tokens(self.checkpoint, calibration)
        with closing(Session(Model(self.checkpoint, quantize(self.planted, recipe, samples)))) as session:
            result = text_perplexity(session, self.text)
        assert result["tokens"] > 2500
        return result["ppl"]


@pytest.fixture(scope="module")
def ladder():
    return Ladder()


def test_planting_keeps_the_function(ladder):
    tokens = ladder.checkpoint.encode(ladder.text)[:100]
    none = recipes["none"]
    plain, planted = (
        Session(Model(ladder.checkpoint, quantize(m, none))) for m in (ladder.checkpoint, ladder.planted)
    )
    assert relative(planted.logits(tokens), plain.logits(tokens)) < 1e-5


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_rounding_alone_fails(ladder, method):
    assert ladder[method] > 2 * ladder.float


def test_smoothing_is_better_and_rotation_better_still(ladder):
    assert ladder["smooth"] < ladder["rtn"] / 2
    assert ladder["hadamard"] < ladder["smooth"]
    assert ladder["hadamard"] < 1.08 * ladder.float


def test_behind_rotations_gptq_is_no_worse_than_rounding(ladder):
    assert ladder["hadamard-gptq"] <= ladder["hadamard"]


def test_learned_rotations_are_better_than_random_ones(ladder):
    pytest.importorskip("torch")
    # Random ones are within 4 % of float already. What is learned is the distance from the float model's
    # predictions, free of the text's chance; weights stay exact meanwhile, as SpinQuant has it, because any
    # two rotations differ by more in how rounded weights happen to fall.
    exact = ladder.predictions(recipes["none"], FEW)
    distance = {}
    for kind in ("hadamard", "learned"):
        passes = (FoldNorms(), Rotate(kind, kind, steps=30))
        recipe = Recipe(kind, None, UINT4, None, None, passes=passes)
        found = ladder.predictions(recipe, Calibration(samples=32, length=128))
        distance[kind] = (np.exp(exact) * (exact - found)).sum(axis=1).mean()
    assert 0 < distance["learned"] < distance["hadamard"]


@pytest.mark.parametrize(("name", "allowed"), [("w4a4kv8", 1.08), ("w4a8kv4", 1.05)])
def test_recipes_stay_close_to_float(ladder, name, allowed):
    assert ladder.measure(recipes[name], FEW) < allowed * ladder.float
