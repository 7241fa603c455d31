"""Output folders: planned in memory, written in one step, recognised by their manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from ...errors import UsageError
from ...staging import StagedFolder

MANIFEST = "manifest.json"
SCHEMA = 1
GENERATOR = "flexllm-allo"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is on the disk: its size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Everything a project folder will hold, as bytes by relative path.

    The same program and data give the same bytes: no time stamps, no absolute paths.

    Attributes:
        files: contents by path.
        written: files that are too large to be held here and that somebody else writes.
        details: more entries of the manifest.
    """

    top: str
    device: str
    frequency_mhz: float
    files: Mapping[str, bytes]
    written: Mapping[str, WrittenFile] = field(default_factory=dict[str, WrittenFile])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by file."""
        found = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        found |= {name: file.sha256 for name, file in self.written.items()}
        return dict(sorted(found.items()))

    def manifest(self) -> bytes:
        content = {
            "schema": SCHEMA,
            "generator": GENERATOR,
            "version": _version(),
            "top": self.top,
            "device": self.device,
            "frequency_mhz": self.frequency_mhz,
            **self.details,
            "files": self.digests,
        }
        return (json.dumps(content, indent=2) + "\n").encode()


def write_project(plan: BuildPlan, out_dir: str | Path) -> Path:
    """Write a plan to a folder: all of it, or nothing.

    An existing folder is replaced only if it is empty or a project of ours. One that holds this very plan
    already stays, with what tools have made in it.

    Raises:
        UsageError: FX702, the folder belongs to something else, cannot be written, or another process is
            writing it.
    """
    out = Path(os.path.abspath(out_dir))
    with staged_project(out) as staged:
        staged.keep_only([])
        if not is_current(plan, out):
            write_files(staged, plan)
            staged.commit()
    return out


def staged_project(out: Path) -> StagedFolder:
    """The project folder in the making; the folders above it are made.

    Raises:
        UsageError: FX702.
    """
    check_folder(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(out, error.strerror or str(error)) from error
    return StagedFolder(out, MANIFEST)


def write_files(staged: StagedFolder, plan: BuildPlan) -> None:
    """The files of a plan, the manifest last."""
    for name, data in plan.files.items():
        staged.write(name, [data])
    staged.write(MANIFEST, [plan.manifest()])


def is_current(plan: BuildPlan, out: Path) -> bool:
    """Whether a folder holds the project that a plan describes, no file of it missing or of another size."""
    try:
        same = (out / MANIFEST).read_bytes() == plan.manifest()
        sizes = {name: len(data) for name, data in plan.files.items()}
        sizes |= {name: file.bytes for name, file in plan.written.items()}
        return same and all((out / name).stat().st_size == size for name, size in sizes.items())
    except OSError:
        return False


def check_folder(out: str | Path) -> None:
    """Refuse a place that `write_project` would refuse, before the work that leads there.

    Raises:
        UsageError: FX702, it holds something else, or lies in what is no folder.
    """
    out = Path(os.path.abspath(out))
    if not os.path.lexists(out):
        parent = next(p for p in out.parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise _refusal(out, f'"{parent}" is not a folder one can write to')
        return
    if not out.is_dir() or out.is_symlink():
        raise _refusal(out, "it is not a folder")
    if any(out.iterdir()) and not _is_ours(out / MANIFEST):
        raise _refusal(out, "it holds files that are not a project of this tool")


def _is_ours(manifest: Path) -> bool:
    try:
        content = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and cast("dict[str, object]", content).get("generator") == GENERATOR


def _version() -> str:
    try:
        return version(GENERATOR)
    except PackageNotFoundError:
        return "unknown"


def _refusal(out: Path, reason: str) -> UsageError:
    return UsageError(
        "FX702",
        f'cannot write the project to "{out}": {reason}',
        hint="name a new folder, or one written by an earlier build",
    )
