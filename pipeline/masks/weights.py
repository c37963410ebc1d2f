"""A segmenter's weights: a local file, or a verified and cached download."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pipeline import files
from pipeline.download import cache, download
from pipeline.errors import ProtoMaskError


def find_weights(url: str, sha256: str, local: Path | None) -> Path:
    """Returns the file with a segmenter's weights; downloads it once for each user.

    Downloads are kept in the folder `weights` of the user's cache.

    Args:
        url: URL of the published weights.
        sha256: SHA-256 of the file's content, 64 hex digits.
        local: path of the file, if the user has it already; None looks in the cache.

    Returns:
        A file with exactly that content.

    Raises:
        ProtoMaskError: `local` is missing or another file, the download failed or has other
            content, or the cache folder cannot be written.
    """
    if local is not None:
        _refuse_other(local, url, sha256)
        return local
    path = cache("weights") / f"{sha256[:16]}-{PurePosixPath(urlsplit(url).path).name}"
    download(url, sha256, path, _by_hand(url, sha256, path))
    return path


def _refuse_other(local: Path, url: str, sha256: str) -> None:
    try:
        found = files.sha256(local)
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


def _by_hand(url: str, sha256: str, path: Path) -> str:
    return (
        f"download {url} (SHA-256 {sha256}) on a machine with internet, and set runtime.weights to "
        f"the file, or put it at {path} (PROTOMASK_CACHE names another cache folder)"
    )
