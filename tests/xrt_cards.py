"""A stand-in for pyxrt whose card has one design at a time, which the CPU runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from flexllm_allo.backend.containers import container
from flexllm_allo.backend.hls.csim import csim_dtype
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.ir import nodes as ir


class Bo:
    """Memory of the card, and views into it; nothing counts before it is synchronised."""

    normal = 0

    def __init__(self, parent: Any, size: int, flags_or_offset: int, group: int | None = None) -> None:
        if isinstance(parent, Bo):
            self.whole, self.card = parent.whole, parent.card
            self.host = parent.host[flags_or_offset : flags_or_offset + size]
            self.device = parent.device[flags_or_offset : flags_or_offset + size]
        else:
            self.whole, self.card = self, parent
            self.host, self.device = np.zeros(size, np.uint8), np.full(size, 0xA5, np.uint8)
            parent.memory.append(self)
        assert len(self.device) == size

    def write(self, data: np.ndarray, offset: int) -> None:
        self.host[offset : offset + len(data)] = data

    def read(self, size: int, offset: int) -> np.ndarray:
        return self.host[offset : offset + size]

    def sync(self, direction: str, size: int, offset: int) -> None:
        assert self.whole in self.card.memory, "the design of this buffer is not on the card any more"
        source, target = (self.host, self.device) if direction == "to" else (self.device, self.host)
        target[offset : offset + size] = source[offset : offset + size]


class Card:
    """A device.

    Attributes:
        loaded: the designs that it was configured with, one after the other.
        memory: what was allocated for the last of them.
    """

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.memory: list[Bo] = []

    def load_xclbin(self, xclbin: str) -> str:
        for buffer in self.memory:
            buffer.device[:] = 0xA5  # the controllers of the memory are configured anew
        self.memory = []
        self.loaded.append(Path(xclbin).name.partition(".")[0])
        return self.loaded[-1]


def standin(modules: Mapping[str, LLVMModule]) -> tuple[Any, Card]:
    """A module pyxrt, and its card; designs by the name of their top function."""
    card = Card()

    class Kernel:
        def __init__(self, device: Card, uuid: str, name: str) -> None:
            assert device is card
            assert uuid == name == card.loaded[-1]
            self.name = name

        def group_id(self, index: int) -> int:
            return index

    class Run:
        def __init__(self, kernel: Kernel) -> None:
            self.kernel, self.args = kernel, dict[int, Any]()

        def set_arg(self, index: int, value: Any) -> None:
            self.args[index] = value

        def start(self) -> None:
            assert self.kernel.name == card.loaded[-1]
            values = [value for _, value in sorted(self.args.items())]
            run(modules[self.kernel.name], values)

        def wait(self) -> None:
            pass

    directions = SimpleNamespace(XCL_BO_SYNC_BO_TO_DEVICE="to", XCL_BO_SYNC_BO_FROM_DEVICE="from")
    module = SimpleNamespace(
        device=lambda index: card, xclbin=str, kernel=Kernel, bo=Bo, run=Run, xclBOSyncDirection=directions
    )
    return module, card


def run(module: LLVMModule, values: list[Any]) -> None:
    """Call a design on the memory of the card."""
    top = module.program.function(module.program.top)
    given = dict(zip((b.name for b in top.params), values, strict=True))
    arrays = {b.name: held(b, given[b.name]) for b in top.inputs}
    result = module(*arrays.values())
    for name, array in arrays.items():
        if isinstance(given[name], Bo):
            given[name].device[:] = array.reshape(-1).view(np.uint8)
    for buffer in top.outputs:
        given[buffer.name].device[:] = np.array([result], np.int32).view(np.uint8)


def held(buffer: ir.Buffer, value: Any) -> Any:
    """An argument as the CPU takes it."""
    if not isinstance(value, Bo):
        return value
    raw = value.device.copy().view(csim_dtype(buffer)).reshape(buffer.shape)
    return raw.view(container(buffer.dtype)) if raw.dtype.kind == "V" else raw
