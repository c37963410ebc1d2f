"""Data sets that are downloaded, verified and unpacked once for each user."""

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock

from pipeline.datasets.archives import unpack
from pipeline.download import cache, download
from pipeline.errors import ProtoMaskError
from pipeline.files import whole_folder


@dataclass(frozen=True)
class Archive:
    """A published tar archive.

    Args:
        url: URL of the tar file.
        sha256: SHA-256 of its content, 64 hex digits.
        size: its size in bytes.
        into: the folder it is unpacked into, relative to the data set's folder.
    """

    url: str
    sha256: str
    size: int
    into: str = "."

    @property
    def name(self) -> str:
        """The archive's file name, from its URL."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Publication:
    """A data set as it is published.

    Args:
        archives: the data set's archives, in the order in which they are unpacked.
        root: the folder in the unpacked archives that `dataset.root` would name.
    """

    archives: tuple[Archive, ...]
    root: str = "."


DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs"

# The hashes and sizes are those by which TensorFlow Datasets verifies its downloads.
PUBLICATIONS = {
    "cub200": Publication(
        (
            Archive(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                1150585339,
            ),
            Archive(
                "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",
                "dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
                39272883,
                into="CUB_200_2011",
            ),
        ),
        root="CUB_200_2011",
    ),
    "dogs": Publication(
        (
            Archive(
                f"{DOGS}/images.tar",
                "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
                793579520,
            ),
            Archive(
                f"{DOGS}/annotation.tar",
                "662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
                21852160,
            ),
            Archive(
                f"{DOGS}/lists.tar",
                "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
                481280,
            ),
        )
    ),
}

# Where to find copies of data sets whose original site is gone.
COPIES = {
    "cars196": "its first home is gone; https://github.com/pytorch/vision/issues/7545 tells where "
    "copies are kept, such as https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars"
}


def root_of(name: str) -> Path:
    """Returns the root folder of a data set of `PUBLICATIONS`, whether or not it is there yet."""
    return _folder(name) / PUBLICATIONS[name].root


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
    with whole_folder(folder) as part:
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
