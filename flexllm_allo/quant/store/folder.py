"""The folder a quantized model lives in: one file a layer, a manifest, written in one step or not at all.

``config.json`` and the tokenizer are the float model's own; ``quantization.json`` is the manifest;
``embed``, ``layer-00`` ... and ``head`` ``.safetensors`` hold the tensors, codes packed without gaps.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ModelError, QuantError
from ...staging import StagedFolder, refusal
from ..recipe_file import recipe_from_dict, recipe_to_dict
from ..recipes import Recipe
from .files import Raw, file_chunks, open_tensors
from .manifest import MANIFEST, Entry, Manifest, read_manifest
from .tensors import StoredTensors, Value, to_raw

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""Files that a quantized model has in common with the float one."""


@dataclass(frozen=True)
class Source:
    """The float model that was quantized: its folder, and the sha256 of its files."""

    folder: Path
    digests: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Source:
        """Read a folder through, its files side by side.

        Raises:
            ModelError: FX601, a file cannot be read.
        """
        names = {path.name for path in folder.glob("*.safetensors")}
        names |= {name for name in COMPANIONS if (folder / name).is_file()}
        paths = [folder / name for name in sorted(names)]
        with ThreadPoolExecutor(4) as pool:
            digests = pool.map(_sha256, paths)
        return cls(folder, {path.name: digest for path, digest in zip(paths, digests, strict=True)})


class QuantizedFolder(NamedTuple):
    """What `read_quantized` finds: config.json, the recipe, the tensors, read when they are used, and the
    settings of calibration."""

    config: dict[str, Any]
    recipe: Recipe
    tensors: StoredTensors
    calibration: dict[str, Any] | None


def check_output(out: Path) -> None:
    """Refuse early what `write_quantized` would refuse: a folder that cannot be written or holds other files.

    Raises:
        UsageError: FX702.
    """
    StagedFolder(out, MANIFEST)


def write_quantized(
    out: Path,
    source: Source,
    recipe: Recipe,
    tensors: Callable[[frozenset[str]], Iterable[tuple[str, Value]]],
    calibration: dict[str, Any] | None = None,
) -> Manifest:
    """Quantize into a folder, which changes in one step at the end.

    Every finished file is kept, so that a run that was cut short is taken up again: the next one with the
    same source, recipe and calibration goes on after the last complete layer. The files of any other run
    are removed.

    Args:
        out: the folder; a quantized model there before is replaced.
        source: the float model.
        recipe: what is done to it.
        tensors: gives (name, value) file by file: ``embed``; ``layers.{i}.*``; ``final_norm``, ``w_head``,
            ``head.*``. It is called with the names that are done and may leave those out.
        calibration: settings that the result depends on, for the manifest.

    Raises:
        UsageError: FX702, the folder cannot be written, or another process is writing it; what was there
            before is intact.
    """
    started = Manifest(recipe=recipe_to_dict(recipe), source=dict(source.digests), calibration=calibration)
    if out.resolve() == source.folder.resolve():
        raise refusal(out, "it is the model that is to be quantized")
    with StagedFolder(out, MANIFEST) as staged:
        manifest = _resumed(staged, started)
        resumed = {entry.file for entry in manifest.tensors.values()}
        written: set[str] = set()
        for file, group in groupby(tensors(frozenset(manifest.tensors)), lambda item: file_of(item[0])):
            assert file not in written, f"the tensors of {file} do not come one after the other"
            if file not in resumed:  # else computed again, because later layers depend on it
                _write_file(staged, manifest, file, group)
                written.add(file)
        for name in COMPANIONS:
            if (source.folder / name).is_file():
                staged.write(name, [_read(source.folder / name)])
        manifest.complete = True
        staged.write(MANIFEST, [manifest.text()])
        staged.commit()
    return manifest


def is_quantized(folder: str | Path) -> bool:
    """Whether a folder holds a quantized model, complete or not."""
    return (Path(folder) / MANIFEST).exists()


def read_quantized(folder: str | Path) -> QuantizedFolder:
    """A quantized model; its tensors are memory-mapped, and checked and unpacked at each access.

    Raises:
        QuantError: FX608, the folder is no quantized model, damaged, or of a newer version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise QuantError("FX608", f"{folder} is not complete", hint="run flexllm quantize again")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        recipe = recipe_from_dict(manifest.recipe, "its recipe")
    except (OSError, ValueError) as error:
        reason = error.message if isinstance(error, QuantError) else error
        raise QuantError(
            "FX608", f"{folder} is damaged: {reason}", hint="quantize the model again"
        ) from error
    return QuantizedFolder(config, recipe, StoredTensors(folder, manifest), manifest.calibration)


def file_of(name: str) -> str:
    """The file of a tensor."""
    layer = re.match(r"layers\.(\d+)\.", name)
    if layer:
        return f"layer-{int(layer[1]):02}.safetensors"
    return "embed.safetensors" if name == "embed" else "head.safetensors"


def _resumed(staged: StagedFolder, started: Manifest) -> Manifest:
    """The manifest of an earlier run over the same things, or a new one in an empty folder."""
    earlier, complete = _manifest_or_none(staged.path), set[str]()
    if earlier and earlier.same_origin(started) and not _is_replaced(earlier, staged.out, started):
        complete = _complete_files(staged.path, earlier)
    tensors = earlier.tensors.items() if earlier else ()
    done = {name: entry for name, entry in tensors if entry.file in complete}
    staged.keep_only([*complete, MANIFEST] if complete else [])
    return started.model_copy(update={"tensors": done})


def _manifest_or_none(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except QuantError:
        return None


def _is_replaced(staged: Manifest, out: Path, started: Manifest) -> bool:
    """Whether the staged folder may be an old output that a killed process swapped out but did not remove."""
    current = _manifest_or_none(out)
    return staged.complete and current is not None and current.same_origin(started)


def _complete_files(folder: Path, manifest: Manifest) -> set[str]:
    """Files that hold all arrays the manifest says; one that does not is written again."""
    parts: dict[str, set[str]] = {}
    for entry in manifest.tensors.values():
        parts.setdefault(entry.file, set()).update(entry.crc32)
    complete: set[str] = set()
    for file, names in parts.items():
        try:
            if set(open_tensors(folder / file)) == names:
                complete.add(file)
        except QuantError:
            continue
    return complete


def _write_file(
    staged: StagedFolder, manifest: Manifest, file: str, tensors: Iterator[tuple[str, Value]]
) -> None:
    raws: dict[str, Raw] = {}
    entries: dict[str, Entry] = {}
    for name, value in tensors:
        entries[name], parts = to_raw(name, value, file)
        raws |= parts
    staged.write(file, file_chunks(raws))
    manifest.tensors |= entries
    staged.write(MANIFEST, [manifest.text()])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError("FX601", f"cannot read {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError("FX601", f"cannot read {path}: {error.strerror}") from error
