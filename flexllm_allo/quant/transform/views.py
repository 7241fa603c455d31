"""A float model seen through a change of its tensors: computed when it is read, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..model import FloatModel, Shape

FloatArray = NDArray[np.float32]
Change = Callable[[str, FloatArray], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ModelView:
    """`base` with ``change(name, tensor)`` in place of every tensor, as float32 (a `FloatModel`).

    Views stack: each read goes through all of them, in float64 inside a change and float32 between.
    """

    base: FloatModel
    change: Change

    @property
    def config(self) -> Shape:
        return self.base.config

    @property
    def tensors(self) -> Mapping[str, FloatArray]:
        return _Changed(self.base.tensors, self.change)

    def rope_tables(self, max_seq_len: int) -> tuple[FloatArray, FloatArray]:
        """Cosines and sines [max_seq_len, head_dim / 2]."""
        return self.base.rope_tables(max_seq_len)


class _Changed(Mapping[str, FloatArray]):
    def __init__(self, tensors: Mapping[str, FloatArray], change: Change) -> None:
        self._tensors, self._change = tensors, change

    def __getitem__(self, name: str) -> FloatArray:
        return np.ascontiguousarray(self._change(name, self._tensors[name]), dtype=np.float32)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def finite(model: FloatModel) -> ModelView:
    """The model, whose tensors are refused when they are read and hold NaN or infinity.

    Folds and rotations spread such a value over other tensors, so it must be named before.

    Raises:
        QuantError: FX606 with the name of the tensor, on reading it.
    """
    return ModelView(model, _checked)


def _checked(name: str, tensor: FloatArray) -> FloatArray:
    if not np.isfinite(tensor).all():
        at = np.argwhere(~np.isfinite(tensor))[0]
        place = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column")[-len(at) :], at, strict=True))
        raise QuantError(
            "FX606",
            f"{name} holds {tensor[tuple(at)]} ({place})",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    return tensor
