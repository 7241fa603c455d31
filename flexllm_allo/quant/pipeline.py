"""A float model under a recipe: passes on the float model, then its layers one by one."""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .calibration import Samples, check_samples
from .check import check_fit, check_recipe
from .layers import OnStep, Result, round_tensors
from .model import FloatModel
from .passes import needs_data
from .recipes import Recipe
from .transform.float_passes import apply_float_passes


def quantize_tensors(
    model: FloatModel,
    recipe: Recipe,
    samples: NDArray[np.integer] | None = None,
    on_step: OnStep | None = None,
    done: Container[str] = (),
) -> Iterator[Result]:
    """The tensors of a model under a recipe, one after the other.

    Passes on the float model are views, so a matrix is computed when its site is reached. With data, the
    samples walk through the layers: a site is rounded for the inputs that the rounded sites in front of it
    produce, weights and activations both. At any time there are the residual streams of the samples, one
    layer in float and rounded, and one Hessian.

    Args:
        model: any float model.
        recipe: formats and passes.
        samples: token ids [B, T]; looked at only if a pass needs data.
        on_step: for progress.
        done: names of tensors that are there already; layers all of whose tensors are among them are left
            out where nothing else depends on them, which is where no data walks through the layers.

    Yields:
        ``embed`` float32 [V, E] (and ``positions`` [S, E] where they are learned); per layer ``layers.{i}.``
        and: ``attn_norm``, ``mlp_norm`` float32 [E], what else norms learn (`decoder.VECTORS`); ``wq``,
        ``wk``, ``wv``, ``wo``, ``w_gate``, ``w_up``, ``w_down``, as far as there are any; ``final_norm``;
        ``w_head``. In front of a weight its ``{kind}.bias`` float32 [N]. With Outliers ``{site}.outliers``
        int32 [C], with LowRank ``{site}.low_rank`` float32 [r, K], with either ``{kind}.side`` float32
        [N, C + r] (see `decoder.Site`). With StaticScales ``q_scale``, ``p_scale`` float32 [H], ``k_scale``,
        ``v_scale`` [KV].

    Raises:
        QuantError: FX604 as `check_recipe` and `check_fit`, or for a pass that does not know the family,
            FX606 with the name of a tensor that cannot be quantized, FX607 for data missing or unusable.
    """
    data = checked_samples(model, recipe, samples)
    if on_step:
        on_step("float passes", 0, model.config.num_hidden_layers + 2)
    yield from round_tensors(apply_float_passes(model, recipe, data), recipe, data, on_step, done)


def checked_samples(model: FloatModel, recipe: Recipe, samples: NDArray[np.integer] | None) -> Samples | None:
    """The samples that the passes of a recipe look at, or None if none does.

    Raises:
        QuantError: FX604 and FX607 as `quantize_tensors`.
    """
    check_recipe(recipe)
    check_fit(recipe, model.config)
    if not needs_data(recipe.passes):
        return None
    if samples is None:
        raise QuantError(
            "FX607",
            f"recipe {recipe.name!r} looks at activations and was given no calibration samples",
            hint="pass samples made by calibration_samples, or choose a recipe with Rtn alone",
        )
    return check_samples(samples, model.config)
