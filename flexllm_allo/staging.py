"""A folder that is replaced in one step: written beside, then swapped in."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from .errors import FlexError, UsageError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux' renameat2


class StagedFolder:
    """A folder in the making, next to the one it will replace.

    Until `commit` the old folder stays as it is, whatever happens. What is finished survives the end of the
    process in ``.NAME.partial``, where the next run may go on from it. A lock keeps a second writer out.

    Args:
        out: the folder to replace or to make; its parent must exist.
        marker: a file that tells a folder of this kind; others are not replaced unless they are empty.

    Raises:
        UsageError: FX702, nothing can be written there, or another process is writing it.
    """

    def __init__(self, out: Path, marker: str) -> None:
        self.out = out = Path(out).resolve()
        self.path = out.with_name(f".{out.name}.partial")
        self._old = out.with_name(f".{out.name}.old")
        self._lock_path = out.with_name(f".{out.name}.lock")
        self._lock: int | None = None
        with _refusals(self):
            if not out.parent.is_dir():
                raise refusal(out, f'there is no folder "{out.parent}"')
            if out.exists() and not out.is_dir():
                raise refusal(out, "it is a file")
            if out.is_dir() and not (out / marker).exists() and any(out.iterdir()):
                raise refusal(out, f"it holds other files and no {marker}")
            if not os.access(out.parent, os.W_OK | os.X_OK):
                raise refusal(out, f'the folder "{out.parent}" is not writable')

    def __enter__(self) -> StagedFolder:
        self._lock = self._locked()
        with _refusals(self):
            if self._old.exists():  # left by a process that was killed between the two renames of `_swap`
                if self.out.exists():
                    shutil.rmtree(self._old)
                else:
                    self._old.rename(self.out)
            self.path.mkdir(exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A refusal would come again at the same place; a full disk, a signal or a bug may not.
        if isinstance(error, FlexError) and error.code != "FX702":
            shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()  # if it is empty
        if self._lock is not None:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file of the new folder; it is on the disk, complete, when this returns.

        `name` may lie in folders below, which are made.
        """
        path = self.path / name
        temporary = path.with_name(f".{path.name}.tmp")
        with _refusals(self):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove all but these files and folders (paths inside) that an earlier run left."""
        keep = {self.path / name for name in names}
        with _refusals(self):
            _prune(self.path, keep)

    def commit(self) -> None:
        """Put the new folder in the place of the old one and remove that."""
        with _refusals(self):
            self._swap()
            _sync(self.out.parent)
            shutil.rmtree(self.path, ignore_errors=True)
            shutil.rmtree(self._old, ignore_errors=True)

    def _swap(self) -> None:
        if not self.out.exists() or not any(self.out.iterdir()):
            self.path.rename(self.out)
        elif not _exchanged(self.path, self.out):
            # Where the system cannot exchange two names there is a moment with none; `__enter__` mends it.
            self.out.rename(self._old)
            self.path.rename(self.out)

    def _locked(self) -> int:
        while True:
            with _refusals(self):
                handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last owner may have removed the file between the two calls; then lock the new one.
                if os.path.samestat(os.fstat(handle), os.stat(self._lock_path)):
                    return handle
            except BlockingIOError:
                os.close(handle)
                raise refusal(
                    self.out, "another process is writing it", "wait for it to end, or name another folder"
                ) from None
            except FileNotFoundError:
                pass
            os.close(handle)


def _prune(folder: Path, keep: set[Path]) -> None:
    above = {parent for path in keep for parent in path.parents}
    for path in folder.iterdir():
        if path in keep:
            continue
        if not path.is_dir() or path.is_symlink():
            path.unlink()
        elif path in above:
            _prune(path, keep)
        else:
            shutil.rmtree(path)


def refusal(out: Path, reason: str, hint: str = "") -> UsageError:
    """The error of a folder that cannot be written."""
    hint = hint or "name a folder that is new or that this tool made, in a folder you can write to"
    return UsageError("FX702", f'cannot write "{out}": {reason}', hint=hint)


@contextmanager
def _refusals(staged: StagedFolder) -> Generator[None]:
    """What the system refuses, as an error that says what became of the files."""
    try:
        yield
    except OSError as error:
        what = "is as it was" if staged.out.exists() else "was not made"
        hint = f"{staged.out.name} {what}"
        if staged.path.exists():
            hint += f"; what is finished is in {staged.path.name}, and the same command goes on from there"
        raise refusal(staged.out, error.strerror or str(error), hint) from error


def _exchanged(a: Path, b: Path) -> bool:
    """Exchange two names in one step, or do nothing where the system has no such thing."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
