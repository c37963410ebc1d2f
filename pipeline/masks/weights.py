"""A segmenter's weights: a local file, or a download that is verified, resumed and kept.

The SHA-256 says which bytes are meant, so a part of a file that an earlier run left is continued
without asking whether the server still has the same file: other bytes fail the check at the end,
are deleted, and the next run starts over.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import platformdirs
import requests
from filelock import FileLock
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline.datasets import listing
from pipeline.errors import ProtoMaskError
from pipeline.progress import console

CHUNK = 64 * 1024
TIMEOUT = 30.0
PAUSES = (1.0, 2.0, 4.0, 8.0)
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def find_weights(url: str, sha256: str, local: Path | None) -> Path:
    """Returns the file with a segmenter's weights; downloads it once for this user.

    What is downloaded lies in the user's cache folder, or in the folder `weights` of the one that
    the environment variable PROTOMASK_CACHE names. A second process that wants the same file waits
    for the first.

    Args:
        url: where the weights are published.
        sha256: the hex digest of the file.
        local: the file, where the user has it already; None looks in the cache.

    Returns:
        A file with exactly that content.

    Raises:
        ProtoMaskError: `local` is missing or another file; the download failed or brought other
            bytes; the cache folder cannot be written.
    """
    if local is not None:
        _refuse_other(local, url, sha256)
        return local
    path = _cache() / f"{sha256[:16]}-{PurePosixPath(urlsplit(url).path).name}"
    try:
        if not _is(path, sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is(path, sha256):
                    _download(url, sha256, path)
    except OSError as error:  # those of requests are OSErrors too
        raise ProtoMaskError(
            f"{url} could not be downloaded ({_in_short(error)}){_kept(_part(path))}; "
            f"{_by_hand(url, sha256, path)}"
        ) from None
    return path


def _refuse_other(local: Path, url: str, sha256: str) -> None:
    try:
        found = listing.sha256(local)
    except OSError as error:
        raise ProtoMaskError(
            f"runtime.weights: {local} cannot be read ({error.strerror}); download {url} "
            f"(SHA-256 {sha256}) and give that file"
        ) from None
    if found != sha256:
        raise ProtoMaskError(
            f"runtime.weights: {local} has the SHA-256 {found}, not {sha256}; download {url} and "
            "give that file, or, if this one is meant (weights of your own), set "
            f"segmenter.weights_sha256={found}"
        )


def _cache() -> Path:
    folder = os.environ.get("PROTOMASK_CACHE") or platformdirs.user_cache_path("protomask")
    return Path(folder) / "weights"


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and listing.sha256(path) == sha256


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _download(url: str, sha256: str, path: Path) -> None:
    part = _part(path)
    if not _is(part, sha256):
        with _bar() as bar:
            task = bar.add_task(f"Downloading {path.name}", total=None)
            for done, total in _fetch(url, part):
                bar.update(task, completed=done, total=total)
    found = listing.sha256(part)
    if found != sha256:
        part.unlink()
        raise ProtoMaskError(
            f"{url} served other bytes than expected (SHA-256 {found}): a proxy's page, a new "
            f"release, or a damaged download; try again, or {_by_hand(url, sha256, path)}"
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
    """Fetches what a part lacks, over as many connections as that takes.

    After a connection that broke and had brought new bytes there are as many further tries as
    pauses, and new ones each time new bytes come; a first connection that brings none is the last.

    Yields:
        How many bytes the part has, and how many the file has if the server says so.

    Raises:
        requests.RequestException: no tries are left, or the server refuses.
        OSError: the part cannot be written.
    """
    pauses: Iterator[float] = iter(())
    most = _size(part)
    while True:
        try:
            yield from _fetch_once(url, part)
            return
        except BROKEN:
            if _size(part) > most:
                most, pauses = _size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise
        time.sleep(pause)


def _fetch_once(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
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
    """Names an error by its kind and by what first caused it."""
    cause: BaseException = error
    while (earlier := cause.__cause__ or cause.__context__) is not None:
        cause = earlier
    return f"{type(error).__name__}: {cause}"


def _kept(part: Path) -> str:
    size = _size(part)
    if not size:
        return ""
    return f"; the {size} bytes that came are kept, and the next run goes on from there"


def _by_hand(url: str, sha256: str, path: Path) -> str:
    return (
        f"download {url} (SHA-256 {sha256}) on a machine with internet, and set runtime.weights to "
        f"the file, or put it at {path} (PROTOMASK_CACHE names another cache folder)"
    )
