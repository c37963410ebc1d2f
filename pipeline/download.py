"""Downloads that are verified, resumable, and made once for several processes.

The SHA-256 identifies the file, so a partial file that an earlier run left is continued without
asking whether the server still has the same file: other content fails the check at the end and is
deleted, and the next run starts again.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline import files
from pipeline.errors import ProtoMaskError
from pipeline.progress import console

CHUNK = 64 * 1024
TIMEOUT = 30.0
PAUSES = (1.0, 2.0, 4.0, 8.0)


def cache(kind: str) -> Path:
    """Returns the folder for this user's downloads of a kind, such as "weights".

    It is in the user's cache folder, or in the one named by the environment variable
    PROTOMASK_CACHE.

    Args:
        kind: name of the subfolder.
    """
    folder = os.environ.get("PROTOMASK_CACHE") or platformdirs.user_cache_path("protomask")
    return Path(folder) / kind


def download(url: str, sha256: str, path: Path, by_hand: str) -> None:
    """Downloads a published file to a path, unless it is there already.

    A second process that wants the same file waits for the first. An interrupted download is
    resumed by this run or the next.

    Args:
        url: URL of the file.
        sha256: SHA-256 of its content, 64 hex digits.
        path: path of the file; a partial download is kept beside it.
        by_hand: what to do without this download, for error messages.

    Raises:
        ProtoMaskError: the download failed or has other content, or the folder cannot be written.
    """
    try:
        if not _is(path, sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is(path, sha256):
                    _download(url, sha256, path, by_hand)
    except OSError as error:  # includes the exceptions of requests
        raise ProtoMaskError(
            f"{url} could not be downloaded ({_in_short(error)}){_kept(_part(path))}; {by_hand}"
        ) from None


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and files.sha256(path) == sha256


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _download(url: str, sha256: str, path: Path, by_hand: str) -> None:
    part = _part(path)
    if not _is(part, sha256):
        with _bar() as bar:
            task = bar.add_task(f"Downloading {path.name}", total=None)
            for done, total in _fetch(url, part):
                bar.update(task, completed=done, total=total)
    found = files.sha256(part)
    if found != sha256:
        part.unlink()
        raise ProtoMaskError(
            f"{url} served other bytes than expected (SHA-256 {found}): a proxy's page, a new "
            f"release, or a damaged download; try again, or {by_hand}"
        )
    part.replace(path)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _fetch(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """Downloads the missing part of a file, over several connections if they break.

    After a connection that brought new bytes and broke, there are as many further tries as
    `PAUSES`; new bytes reset their number. A first connection that brings no bytes is the last.

    Yields:
        The number of bytes so far, and the total number if the server gives it.

    Raises:
        requests.RequestException: all tries failed, or the server refuses.
        OSError: the part cannot be written.
    """
    import requests

    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    pauses: Iterator[float] = iter(())
    most = _size(part)
    while True:
        try:
            yield from _fetch_once(url, part)
            return
        except broken:
            if _size(part) > most:
                most, pauses = _size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise
        time.sleep(pause)


def _fetch_once(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            yield from _fetch_once(url, part)
            return
        response.raise_for_status()
        resumes = response.status_code == requests.codes.partial_content
        done = have if resumes else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with part.open("ab" if resumes else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                yield done, total


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _in_short(error: OSError) -> str:
    """Returns the class of an error and the message of its first cause."""
    cause: BaseException = error
    while (earlier := cause.__cause__ or cause.__context__) is not None:
        cause = earlier
    return f"{type(error).__name__}: {cause}"


def _kept(part: Path) -> str:
    size = _size(part)
    if not size:
        return ""
    return f"; the {size} bytes that came are kept, and the next run goes on from there"
