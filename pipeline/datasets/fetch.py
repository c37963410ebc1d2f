"""Data sets that are downloaded, verified and unpacked once for each user."""

import shutil
from pathlib import Path, PurePosixPath

from filelock import FileLock

from pipeline.datasets.archives import unpack
from pipeline.datasets.dataset import Publication
from pipeline.download import cache, download
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_folder


def root_of(name: str, publication: Publication) -> Path:
    """Returns the root folder of a downloaded data set, whether or not it is there yet.

    Args:
        name: name of the data set's folder in the cache.
        publication: the archives, and the root folder in them.
    """
    return _folder(name) / publication.root


def fetch(name: str, publication: Publication) -> None:
    """Downloads a data set's archives and unpacks them, unless this user has it already.

    The data set is placed atomically in the folder `datasets/NAME` of the user's cache. Archives
    are kept until then, so that an interrupted run resumes. A second process waits for the first.

    Args:
        name: name of the data set's folder in the cache.
        publication: the archives to download, and the root folder in them.

    Raises:
        ProtoMaskError: a download failed or has other content, an archive is damaged or unsafe, the
            disk is full, or the cache folder cannot be written.
    """
    folder = _folder(name)
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock").acquire()
    except OSError as error:
        raise ProtoMaskError(
            f"{folder} cannot be written ({error.strerror}): let the environment variable "
            "PROTOMASK_CACHE name a folder that can, or set dataset.root to a copy of your own"
        ) from None
    with lock:
        if not folder.is_dir():
            _lay_out(publication, folder)


def _folder(name: str) -> Path:
    return cache("datasets") / name


def _lay_out(publication: Publication, folder: Path) -> None:
    downloads, by_hand = folder.with_name(f"{folder.name}.archives"), _by_hand(publication)
    for left in folder.parent.glob(
        f".{folder.name}.*.part"
    ):  # of a killed process that held the lock
        shutil.rmtree(left)
    _refuse_too_little_room(publication, folder.parent, downloads)
    for archive in publication.archives:
        download(archive.url, archive.sha256, downloads / archive.name, by_hand)
    with atomic_folder(folder) as part:
        for archive in publication.archives:
            unpack(downloads / archive.name, part / archive.into)
    shutil.rmtree(downloads)


def _refuse_too_little_room(publication: Publication, place: Path, downloads: Path) -> None:
    """Raises if the disk has too little space for the archives and the unpacked images.

    Images hardly compress: unpacked, they take about the archives' size again.
    """
    here = sum(path.stat().st_size for path in downloads.glob("*"))
    needed = 2 * sum(archive.size for archive in publication.archives) - here
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ProtoMaskError(
            f"{place} has room for {free / 1e9:.1f} GB, but about {needed / 1e9:.1f} GB are "
            "needed: make room, or let the environment variable PROTOMASK_CACHE name a folder on "
            "another disk"
        )


def _by_hand(publication: Publication) -> str:
    steps = [
        f"  download {archive.url} (SHA-256 {archive.sha256}) and unpack it into "
        f"{PurePosixPath('FOLDER', archive.into)}"
        for archive in publication.archives
    ]
    return "\n".join(
        [
            "by hand, on a machine with internet:",
            *steps,
            f"and set dataset.root={PurePosixPath('FOLDER', publication.root)} "
            "(PROTOMASK_CACHE names another cache folder)",
        ]
    )
