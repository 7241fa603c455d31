"""``ExternalModule``: a C++ kernel for AMD's NPU, which this engine describes but does not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ...errors import TargetError


@dataclass(frozen=True)
class ExternalModule:
    """A C++ kernel by name and file; `input_idx` and `output_idx` number its arguments.

    Calling it is refused: `IPModule` is the C++ function that this engine can call.
    """

    top: str
    impl_path: str
    input_idx: Sequence[int]
    output_idx: Sequence[int]

    def __call__(self, *_: object) -> NoReturn:
        raise TargetError(
            "FX402",
            f"ExternalModule {self.top} is not supported by this engine: AMD's NPU is not a target",
            hint="wrap a plain C++ function with IPModule",
        )
