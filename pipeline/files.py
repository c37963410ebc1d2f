"""Atomic writing of files and folders, and hashes of file contents."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ProtoMaskError

STALE = 24 * 3600
LONGEST = 50
"""Characters of a name that a temporary one begins with: file systems allow 255 bytes."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` if the block succeeds.

    After an exception or a kill, `path` is unchanged.

    Args:
        path: path of the file; its folder is created if missing.

    Raises:
        ProtoMaskError: a file lies where its folder belongs, or something that is no file, such as
            a folder or a device, in its own place.
    """
    _make_folder(path.parent)
    if why := why_no_file(path):
        raise ProtoMaskError(f"{path} {why}; name the file to write")
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which replaces `path` if the block succeeds.

    Args:
        path: path of the folder; its parent is created if missing. Of a link, the folder that it
            leads to is meant.

    Raises:
        ProtoMaskError: a file lies where its parent belongs.
    """
    path = path.resolve() if path.is_symlink() else path
    _make_folder(path.parent)
    sweep(path.parent)
    part = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".part", dir=path.parent))
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def why_no_file(path: Path) -> str | None:
    """Returns what lies at a path that a file must not replace; None for a file or nothing."""
    if not path.exists() or path.is_file():
        return None
    return "is a folder" if path.is_dir() else "is no file, and would be replaced by one"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path) -> None:
    """Removes temporary files and folders that killed runs left in a folder.

    Another process may be writing there (`dvc exp run --queue --jobs 2`, or a second machine with
    the same disk): only what has not been written to for `STALE` seconds is removed.
    """
    for part in folder.glob(".*.part"):
        if time.time() - _last_written(part) < STALE:
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:LONGEST]}."


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ProtoMaskError(
            f"{folder} cannot be made: a file lies where a folder belongs; move it away"
        ) from None


def _last_written(part: Path) -> float:
    """Returns the latest modification time in a file or folder; infinite if it no longer exists."""
    try:
        return max(path.stat().st_mtime for path in (part, *part.rglob("*")))
    except FileNotFoundError:
        return float("inf")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
