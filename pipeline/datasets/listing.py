"""The files in a data set's folder with the hash of each one's content.

The listing is what later stages depend on: it is the same on every machine with the same files,
whatever their location and times.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from pipeline.errors import ProtoMaskError
from pipeline.files import sha256, whole_file
from pipeline.progress import track

KEY = ["path", "size", "mtime", "inode"]


def list_files(root: Path, memory: Path | None = None, threads: int = 4) -> dict[str, str]:
    """Hashes every file in a folder; files that are unchanged since an earlier call are not read.

    Hidden files and folders are ignored. A file counts as unchanged if its size, modification time
    (ns) and inode are the same.

    Args:
        root: the data set's folder.
        memory: Parquet file that caches hashes from one call to the next; None caches none.
        threads: number of files that are read at a time.

    Returns:
        The SHA-256 (64 hex digits) of every file by its path relative to `root`, sorted.

    Raises:
        ProtoMaskError: `root` is missing, no folder, or holds no file.
    """
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise ProtoMaskError(f"dataset.root: {root} {what}; give the folder of the data set")
    rows = [_identity(root, path) for path in visible_files(root)]
    if not rows:
        raise ProtoMaskError(f"dataset.root: {root} holds no files")
    found = pd.DataFrame(rows, columns=KEY)
    found = found.merge(_remembered(memory), how="left", on=KEY)
    unknown = found.index[found["sha256"].isna()]
    with ThreadPoolExecutor(threads) as pool:
        hashes = pool.map(lambda row: sha256(root / found.at[row, "path"]), unknown)
        found.loc[unknown, "sha256"] = list(track(hashes, "Hashing files", len(unknown)))
    if memory is not None and len(unknown):
        with whole_file(memory) as part:
            found.to_parquet(part)
    return dict(zip(found["path"], found["sha256"], strict=True))


def visible_files(root: Path) -> list[str]:
    """Returns the relative paths, with forward slashes, of the files that are not hidden, sorted.

    Raises:
        ProtoMaskError: a file name is not UTF-8.
    """
    paths = sorted(path.relative_to(root).as_posix() for path in _walk(root, frozenset()))
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ProtoMaskError(
                f"{root}: the file name {path!r} is not UTF-8; rename it (`convmv` can)"
            ) from None
    return paths


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yields files; follows links to folders, except those that lead back to a parent folder."""
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, above | {here})
        elif path.is_file():
            yield path


def refuse_changed(path: Path, digest: str) -> None:
    """Checks that a file is unchanged since it was listed.

    Args:
        path: path of the file.
        digest: the SHA-256 in the listing, 64 hex digits.

    Raises:
        ProtoMaskError: the file is missing, or its SHA-256 is another.
    """
    if not path.is_file():
        raise ProtoMaskError(
            f"{path} is in the index but not there; run `dvc repro` to list images anew"
        )
    if sha256(path) != digest:
        raise ProtoMaskError(
            f"{path} has changed since it was listed; run `dvc repro` to list images anew"
        )


def _identity(root: Path, path: str) -> tuple[str, int, int, int]:
    status = (root / path).stat()
    return path, status.st_size, status.st_mtime_ns, status.st_ino


def _remembered(memory: Path | None) -> pd.DataFrame:
    """Reads the cache of hashes; a damaged one counts as empty."""
    nothing = pd.DataFrame({**{name: [] for name in KEY}, "sha256": []}).astype(
        {"path": "str", "size": "int64", "mtime": "int64", "inode": "int64", "sha256": "object"}
    )
    try:
        if memory is not None and memory.exists():
            read = pd.read_parquet(memory)
            return read if list(read.columns) == list(nothing.columns) else nothing
    except (OSError, ValueError):
        pass
    return nothing
