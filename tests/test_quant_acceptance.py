"""The ladder of methods at W4A4 on a model with outlier channels: each rung does what it is there for.

Perplexities of the integer path on the first part of the held-out text; `benchmarks/perplexity.py` has all
of it, and every recipe.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
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
        self.whole = (TINY / "heldout.txt").read_text(encoding="utf-8")
        self.text = self.whole[:CHARACTERS]
        self.known = dict[str, float]()

    @cached_property
    def float(self):
        return self.measure(recipes["none"], FEW)

    def __getitem__(self, rung):
        """W4A4 by the passes of a rung, attention and head in float."""
        if rung not in self.known:
            passes, calibration = RUNGS[rung]
            self.known[rung] = self.measure(w4a4(*passes), calibration)
        return self.known[rung]

    def session(self, recipe, calibration=ALL):
        samples = calibration_tokens(self.checkpoint, calibration)
        return closing(Session(Model(self.checkpoint, quantize(self.planted, recipe, samples))))

    def measure(self, recipe, calibration):
        with self.session(recipe, calibration) as session:
            result = text_perplexity(session, self.text)
        assert result["tokens"] > 2500
        return result["ppl"]

    def against_float(self, *chosen):
        """Of recipes on the whole text: perplexity, and mean distance (nats) from the float predictions."""
        ids = np.array(self.checkpoint.encode(self.whole)[1:])
        with ExitStack() as stack:
            exact, *sessions = (stack.enter_context(self.session(r)) for r in (recipes["none"], *chosen))
            nats, distance = np.zeros((2, len(sessions)))
            for window in np.split(ids, range(255, len(ids), 255)):
                wanted = log_probabilities(exact, window)
                for i, session in enumerate(sessions):
                    found = log_probabilities(session, window)
                    nats[i] -= found[np.arange(len(window)), window].sum()
                    distance[i] += (np.exp(wanted) * (wanted - found)).sum()
        return zip(np.exp(nats / len(ids)), distance / len(ids), strict=True)


def w4a4(*passes):
    return Recipe("w4a4", INT4_WEIGHT, UINT4, None, None, passes=passes)


def log_probabilities(session, window):
    """Of each token of a window behind BOS, float64 [T, V]."""
    logits = session.logits([0, *map(int, window[:-1])]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


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


def test_learned_rotations_are_no_worse_than_random_ones(ladder):
    pytest.importorskip("torch")
    # On all of the text: perplexities of two rotations that are equally good differ by 0.3 % on it by chance
    # (one standard deviation), and by twice that on its first part. Distances differ by much less.
    kinds = (Rotate(), Rotate("learned", "learned"))
    random, learned = ladder.against_float(*(w4a4(FoldNorms(), r, Rtn()) for r in kinds))
    assert learned[0] <= random[0]
    assert learned[1] < 0.95 * random[1]


@pytest.mark.parametrize(("name", "allowed"), [("w4a4kv8", 1.08), ("w4a8kv4", 1.05)])
def test_recipes_stay_close_to_float(ladder, name, allowed):
    assert ladder.measure(recipes[name], FEW) < allowed * ladder.float
