"""A model that answers on a card by two linked designs, which take turns on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.hls.project import MANIFEST
from ..errors import UsageError
from ..models.cache_layout import CacheLayout, handed_over
from ..models.hf import Checkpoint
from .card import CardDesign, pyxrt
from .conversation import Conversation, TextSession
from .reconfigured import TwoDesigns
from .xrt_session import XrtSession

Array = NDArray[Any]
STAGES = ("prefill", "decode")


class XrtReconfiguredSession(TextSession):
    """Runs the projects ``prefill`` and ``decode`` of a folder on a card, in turn.

    A prompt runs through the prefill design. Its KV cache comes to the host, is laid out as the decode design
    keeps it, and goes back once that one is loaded, which then makes token after token. A later turn of a
    conversation goes on in the decode design and loads nothing.

    Loading an xclbin configures the part of the device anew in which also the controllers of its memory are:
    what was there is lost, and buffers belong to the design that was loaded when they were made. So whenever
    a design is loaded its weights are written again, all channels of it, and the KV cache of the conversation
    is what the host kept. One conversation has its cache on the card at a time; another one's is read back
    before.

    Args:
        folder: what `build_project` wrote for a checkpoint and a preset of mode "reconfigured".
        xclbins: the linked designs by stage; by default ``<stage>/<stage>.hw.xclbin``.
        device: index of the card.

    Raises:
        ToolError: FX501, the module pyxrt is not installed, or a design is not linked yet.
        UsageError: FX703, a project is missing, has no weights, or is not of the same model.
    """

    def __init__(
        self, folder: Path | str, xclbins: Mapping[str, Path | str] | None = None, device: int = 0
    ) -> None:
        given = {name: Path(path) for name, path in (xclbins or {}).items()}
        self._designs = {name: _design(Path(folder) / name, given.get(name)) for name in STAGES}
        recipes = [design.manifest["recipe"] for design in self._designs.values()]
        if len(set(recipes)) > 1:
            what = f"the designs in {folder} have the recipes {recipes[0]} and {recipes[1]}"
            raise UsageError("FX703", what, hint="build both from one model")
        if len({design.manifest.get("model") for design in self._designs.values()}) > 1:
            what = f"the designs in {folder} have the weights of two models"
            raise UsageError("FX703", what, hint="a build was cut short between them: run it again")
        self._xrt = pyxrt()
        for design in self._designs.values():
            design.check_linked()
        self._checkpoint = self._designs["decode"].checkpoint()
        self._device = self._xrt.device(device)
        self._loaded = ""
        self._owner: _OnCard | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        return self._checkpoint

    def conversation(self) -> Conversation:
        first, second = (self._designs[name] for name in STAGES)
        turns = _OnCard(
            self,
            prompt=first.positions,
            positions=second.positions,
            vocabulary=self.config.vocab_size,
            candidates=min(first.manifest["candidates"], second.manifest["candidates"]),
            makes_token=first.manifest["makes_token"],
        )
        return Conversation(turns, self.config.eos_token_ids, second.positions)

    def close(self) -> None:
        """Let go of the card's memory."""
        self._keep_cache()
        self._unload()

    def prefill_prompt(
        self, prompt: Sequence[int], how: Mapping[str, Any]
    ) -> tuple[int | None, dict[str, Array]]:
        """Run a prompt; the new token, if the design makes one, and the KV cache for the decode design."""
        self._keep_cache()
        design = self._load("prefill")
        design.write("prompt", np.array(prompt, np.int32))
        token = design.run(n_prompt=len(prompt), **how)
        return token, self._handed_over(self._cache())

    def decode_token(self, owner: _OnCard, token: int, pos: int, how: Mapping[str, Any]) -> int:
        """One step on the cache of a conversation, which is brought to the card if it is not there."""
        if self._owner is not owner:
            self._keep_cache()
            design = self._load("decode")
            for name, memory in owner.cache.items():
                design.write(name, memory)
            self._owner = owner
        made = self._designs["decode"].run(token=token, pos=pos, **how)
        assert made is not None
        return made

    def _load(self, name: str) -> CardDesign:
        design = self._designs[name]
        if self._loaded != name:
            self._unload()
            design.load(self._xrt, self._device)
            self._loaded = name
        return design

    def _unload(self) -> None:
        if self._loaded:
            self._designs[self._loaded].unload()
        self._loaded, self._owner = "", None

    def _keep_cache(self) -> None:
        """Read back the cache of the conversation that is on the card."""
        if self._owner is not None:
            self._owner.cache = self._cache()
            self._owner = None

    def _cache(self) -> dict[str, Array]:
        """The KV cache of the design that is loaded."""
        design = self._designs[self._loaded]
        names = (a["name"] for a in design.manifest["arguments"])
        tensors = design.manifest["tensors"]
        written = (n for n in names if n[:2] in ("k_", "v_") and "file" not in tensors[n])
        return {name: design.read(name) for name in written}

    def _handed_over(self, cache: Mapping[str, Array]) -> dict[str, Array]:
        first, second = (self._designs[name] for name in STAGES)
        written, read = (CacheLayout(**design.manifest["cache"]) for design in (first, second))
        if written == read and first.positions == second.positions:
            return dict(cache)
        return handed_over(written, read, cache, first.positions, second.positions)


class _OnCard(TwoDesigns):
    """A conversation on the card.

    Attributes:
        cache: its KV cache as the decode design keeps it, while that is not on the card.
    """

    def __init__(self, session: XrtReconfiguredSession, **limits: Any) -> None:
        super().__init__(**limits)
        self._session = session
        self.cache: dict[str, Array] = {}

    def whole(self, prompt: Sequence[int], how: Mapping[str, Any]) -> int | None:
        token, self.cache = self._session.prefill_prompt(prompt, how)
        return token

    def decode(self, token: int, pos: int, how: Mapping[str, Any]) -> int:
        return self._session.decode_token(self, token, pos, how)


def _design(project: Path, xclbin: Path | None) -> CardDesign:
    if not (project / MANIFEST).is_file():
        hint = 'build a checkpoint with a preset whose mode is "reconfigured"'
        raise UsageError("FX703", f"there is no project {project}", hint=hint)
    return CardDesign(project, xclbin)


def is_project(folder: Path) -> bool:
    """Whether it is what `build_project` wrote."""
    return any((place / MANIFEST).is_file() for place in (folder, *(folder / name for name in STAGES)))


def open_project(folder: Path, device: int = 0) -> TextSession:
    """The linked design of a project on a card, or both that take turns.

    Raises:
        ToolError, UsageError: as `XrtSession` and `XrtReconfiguredSession`.
    """
    if (folder / MANIFEST).is_file():
        return XrtSession(folder, device=device)
    return XrtReconfiguredSession(folder, device=device)


__all__ = ["XrtReconfiguredSession", "is_project", "open_project"]
