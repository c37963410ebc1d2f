"""The files in a data set's folder with the hash of each one's content.

The listing is what later stages depend on: it is the same on every machine with the same files,
whatever their location and times.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.progress import track

KEY = ["path", "size", "mtime", "ctime", "inode"]
SYSTEM_FOLDERS = frozenset(
    [
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "@transcode",
        "__macosx",
        "__pycache__",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
        "~snapshot",
    ]
)
"""Names, in small letters, of folders with thumbnails, deleted files and the like."""

ANEW = (
    "run `dvc repro` to list images anew; if that finds no change, remove .protomask/listings, "
    "where hashes are remembered, and run it again"
)


class Contents(NamedTuple):
    """What is in a data set's folder; paths are relative to it, with forward slashes, sorted.

    Args:
        files: the files that count.
        dangling: links to what is not there.
        passed_over: hidden files and folders, and folders that file servers and systems make.
    """

    files: list[str]
    dangling: list[str]
    passed_over: list[Remark]


def list_files(root: Path, cache: Path | None = None, threads: int = 4) -> dict[str, str | None]:
    """Hashes every file in a folder, see `look_through` and `hash_files`."""
    return hash_files(root, look_through(root), cache, threads)


def hash_files(
    root: Path, contents: Contents, cache: Path | None = None, threads: int = 4
) -> dict[str, str | None]:
    """Hashes files; those that are unchanged since an earlier call are not read.

    A file counts as unchanged if its size, modification time, change time (both in ns) and inode
    are the same. Programs can set the modification time back, the change time they cannot.

    Args:
        root: the data set's folder.
        contents: what is in it.
        cache: Parquet file that caches hashes from one call to the next; None caches none.
        threads: number of files that are read at a time.

    Returns:
        The SHA-256 (64 hex digits) of every file by its path relative to `root`, sorted; None for a
        link to what is not there.
    """
    found = pd.DataFrame([_identity(root, path) for path in contents.files], columns=KEY)
    found = found.merge(_cached(cache), how="left", on=KEY)
    unknown = found.index[found["sha256"].isna()]
    with ThreadPoolExecutor(threads) as pool:
        hashes = pool.map(lambda row: sha256(root / found.at[row, "path"]), unknown)
        found.loc[unknown, "sha256"] = list(track(hashes, "Hashing files", len(unknown)))
    if cache is not None and len(unknown):
        with atomic_file(cache) as part:
            found.to_parquet(part)
    listing: dict[str, str | None] = dict(zip(found["path"], found["sha256"], strict=True))
    return dict(sorted({**listing, **dict.fromkeys(contents.dangling)}.items()))


def look_through(root: Path) -> Contents:
    """Finds the files in a folder, at any depth.

    Hidden files and folders, and folders that file servers and systems make, are passed over.

    Args:
        root: the data set's folder.

    Raises:
        ProtoMaskError: `root` is missing, no folder, or holds no file, or a file name is not UTF-8
            or has a control character.
    """
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise ProtoMaskError(f"dataset.root: {root} {what}; give the folder of the data set")
    contents = _contents(root)
    if not contents.files and not contents.dangling:
        raise ProtoMaskError(f"dataset.root: {root} holds no files")
    _refuse_unwritable(root, [*contents.files, *contents.dangling])
    return contents


def visible_files(root: Path) -> list[str]:
    """Returns the paths of the files that count (see `look_through`); there may be none.

    Raises:
        ProtoMaskError: a file name is not UTF-8 or has a control character.
    """
    names = files_of_any_name(root)
    _refuse_unwritable(root, names)
    return names


def files_of_any_name(root: Path) -> list[str]:
    """Returns the paths of the files that count, also of those whose names no table can hold."""
    return _contents(root).files


def _contents(root: Path) -> Contents:
    files: list[str] = []
    dangling: list[str] = []
    passed_over: list[Remark] = []
    for path in _walk(root, frozenset()):
        name = path.relative_to(root).as_posix()
        if reason := _reason_to_pass_over(path):
            name = name.encode(errors="backslashreplace").decode()
            passed_over.append(Remark(name, reason))
        else:
            (files if path.is_file() else dangling).append(name)
    return Contents(sorted(files), sorted(dangling), sorted(passed_over))


def _refuse_unwritable(root: Path, names: Iterable[str]) -> None:
    """Checks that tables and pages can hold the names."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ProtoMaskError(
                f"{root}: the file name {name!r} is not UTF-8; rename it (`convmv` can)"
            ) from None
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise ProtoMaskError(
                f"{root}: the name {name!r} has a control character, such as a line break; "
                "rename it"
            )


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yields files, links to nothing, and what is passed over.

    Follows links to folders, except those that lead back to a parent folder.
    """
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        if _reason_to_pass_over(path):
            yield path
        elif path.is_dir():
            yield from _walk(path, above | {here})
        elif path.is_file() or path.is_symlink():
            yield path


def _reason_to_pass_over(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden, and passed over"
    if path.name.casefold() in SYSTEM_FOLDERS and path.is_dir():
        return "a folder that file servers and systems make, and passed over"
    return None


def refuse_changed(path: Path, digest: str) -> None:
    """Checks that a file is unchanged since it was listed.

    Args:
        path: path of the file.
        digest: the SHA-256 in the listing, 64 hex digits.

    Raises:
        ProtoMaskError: the file is missing, or its SHA-256 is another.
    """
    if not path.is_file():
        raise ProtoMaskError(f"{path} is in the index but not there; {ANEW}")
    if sha256(path) != digest:
        raise ProtoMaskError(f"{path} has changed since it was listed; {ANEW}")


def _identity(root: Path, path: str) -> tuple[str, int, int, int, int]:
    status = (root / path).stat()
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _cached(cache: Path | None) -> pd.DataFrame:
    """Reads the cache of hashes; a damaged one counts as empty."""
    kinds = {**dict.fromkeys(KEY, "int64"), "path": "str", "sha256": "object"}
    nothing = pd.DataFrame({name: [] for name in kinds}).astype(kinds)
    try:
        if cache is not None and cache.exists():
            read = pd.read_parquet(cache)
            return read if list(read.columns) == list(nothing.columns) else nothing
    except (OSError, ValueError):
        pass
    return nothing
