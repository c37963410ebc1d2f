"""Masks from existing files: a COCO JSON file, or a folder of PNG files for each image."""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import field_validator

from pipeline.datasets import listing
from pipeline.datasets.photograph import SUFFIXES
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.coco import CocoMasks
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter, Source, register

OPAQUE = 255


@register
class Imported(Segmenter):
    """Reads masks from the file or folder `Machine.masks`, whose path may differ between machines.

    An image without masks there has none.

    Args:
        sha256: hash of the masks' content, as computed by `content_hash`.
    """

    name: Literal["import"] = "import"
    version: Literal[1] = 1
    sha256: str

    @field_validator("sha256", mode="before")
    @classmethod
    def _is_a_hash(cls, value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(
                f"is {value!r}, but has to be the hash of the masks to import: {_command('PATH')}"
            )
        return value

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Raises an error: imported masks are found by an image's path, see `segment_sources`."""
        raise ProtoMaskError(
            "there are no masks for other photographs than those of the data set, because the "
            "segmenter is `import`; `protomask predict` needs one that finds masks itself"
        )

    def identity(self, source: Source) -> str:
        """Returns a hash of an image's bytes and path, as its masks are found by the path."""
        return hashlib.sha256(f"{source.sha256} {source.name}".encode()).hexdigest()

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        """Reads the masks of image files of one data set.

        Raises:
            ProtoMaskError: the masks are missing, damaged, not those of `sha256`, of another size
                than their image, or of another data set, or the image of a mask is ambiguous.
        """
        if machine.masks is None:
            raise ProtoMaskError(
                "runtime.masks is not set; name the file or folder of masks to import: "
                f"{_command('PATH')}"
            )
        given = _open(machine.masks, self.sha256)
        names = [_find(given, source) for source in sources]
        if sources and not any(names):
            _refuse_strangers(given, sources[0])
        return [
            self._masks(given, source, name) for source, name in zip(sources, names, strict=True)
        ]

    def _masks(self, given: "Given", source: Source, name: str | None) -> Masks:
        height, width = source.read().shape[:2]
        regions = [] if name is None else given.regions(name, height, width)
        return Masks.of(height, width, regions, len(self.score_names))


class FolderMasks:
    """Reads `FOLDER/class/photo.jpg/*.png` or `FOLDER/class/photo/*.png`, one mask in each file.

    Args:
        path: path of the folder of masks.

    Raises:
        ProtoMaskError: the folder contains no PNG file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = _png_files(path)
        self.example = files[0]
        self._files: dict[str, list[str]] = {}
        for file in files:
            self._files.setdefault(str(PurePosixPath(file).parent), []).append(file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def related(self, photograph: str) -> list[str]:
        """Returns the folders named after an image, with and without its extension.

        Args:
            photograph: path of the image relative to the data set's root.
        """
        names = (photograph, str(PurePosixPath(photograph).with_suffix("")))
        return [name for name in dict.fromkeys(names) if name in self._files]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks in an image's folder, sorted by file name, with a score of 1.

        Args:
            name: the image's folder, relative to the folder of masks.
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ProtoMaskError: a file is no PNG file, or has another size.
        """
        return [self._region(self.path / file, height, width) for file in self._files[name]]

    def _region(self, file: Path, height: int, width: int) -> Region:
        inside = _inside(file)
        if inside.shape != (height, width):
            raise ProtoMaskError(
                f"{file} has {inside.shape[1]}×{inside.shape[0]} pixels, but the upright "
                f"photograph {width}×{height}"
            )
        x0, y0, x1, y1 = Image.fromarray(inside).getbbox() or (0, 0, 0, 0)
        return Region(x0, y0, inside[y0:y1, x0:x1].copy(), (1.0,))


Given = CocoMasks | FolderMasks


def content_hash(path: Path) -> str:
    """Returns the SHA-256 of masks: of a file's bytes, or of a folder's PNG files.

    A folder's is that of the lines `HASH  PATH` that `sha256sum` prints for its files, sorted by
    path.

    Args:
        path: path of the COCO JSON file or of the folder.

    Returns:
        64 hex digits.

    Raises:
        ProtoMaskError: there is no such file, or no PNG file in the folder.
    """
    if path.is_file():
        return sha256(path)
    files = _png_files(path)
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda file: sha256(path / file), files)
        lines = [f"{digest}  {file}\n" for digest, file in zip(hashes, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _command(path: Path | str) -> str:
    return (
        f"`dvc exp run -S segmenter=import -S runtime.masks={path} "
        f"-S segmenter.sha256=$(protomask masks hash {path})`"
    )


@lru_cache(maxsize=1)
def _open(path: Path, sha256: str) -> Given:
    """Checks and reads the masks, once in each process."""
    found = content_hash(path)
    if found != sha256:
        raise ProtoMaskError(
            f"runtime.masks: {path} holds other masks than segmenter.sha256 says ({found[:12]}… "
            f"instead of {sha256[:12]}…); if they are the right ones: {_command(path)}"
        )
    return CocoMasks(path) if path.is_file() else FolderMasks(path)


def _find(given: Given, source: Source) -> str | None:
    """Returns the name in the masks that means an image; None without one.

    Raises:
        ProtoMaskError: several names do, or the name may mean another image as well.
    """
    if source.name in given:
        return source.name
    names = given.related(source.name)
    if not names:
        return None
    photographs = [source.name]
    if len(names) == 1:
        photographs = _photographs(given, source.root).get(names[0], photographs)
    if len(names) > 1 or len(photographs) > 1:
        raise ProtoMaskError(
            f"{given.path}: {' and '.join(map(repr, names))} may mean "
            f"{' and '.join(map(repr, photographs))} in {source.root}; "
            "name each image there by its whole path below the data set's folder"
        )
    return names[0]


@lru_cache(maxsize=1)
def _photographs(given: Given, root: Path) -> dict[str, list[str]]:
    """Returns, for each name in the masks, the images below a folder that it may mean, if any."""
    found: dict[str, list[str]] = {}
    for path in listing.visible_files(root):
        if PurePosixPath(path).suffix.lower() in SUFFIXES:
            for name in given.related(path):
                found.setdefault(name, []).append(path)
    return found


def _refuse_strangers(given: Given, source: Source) -> None:
    """Raises if none of the masks belongs to the image's data set."""
    if not _photographs(given, source.root):
        raise ProtoMaskError(
            f"{given.path} has masks of no photograph in {source.root}: it names "
            f"{given.example!r}, the data set has {source.name!r}; name images there by their "
            "paths below the data set's folder"
        )


def _png_files(folder: Path) -> list[str]:
    """Returns the relative paths of the PNG files in a folder, sorted."""
    if not folder.is_dir():
        raise ProtoMaskError(
            f"no masks at {folder}: name a COCO JSON file or a folder of PNG files"
        )
    files = [path for path in listing.visible_files(folder) if path.lower().endswith(".png")]
    if not files:
        raise ProtoMaskError(
            f"{folder} holds no PNG files; the masks of class/photo.jpg belong into "
            f"{folder}/class/photo.jpg or {folder}/class/photo"
        )
    return files


def _inside(file: Path) -> NDArray[np.bool_]:
    """Returns the mask in a PNG file: where it is not 0, bool height×width.

    A colour image is non-zero where any channel is, a palette image where the index is, and an
    image with transparency where it is not transparent.

    Raises:
        ProtoMaskError: the file is no PNG file, or damaged.
    """
    try:
        with Image.open(file, formats=["PNG"]) as image:
            pixels = np.asarray(image)
            bands = image.getbands()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ProtoMaskError(f"{file} is no PNG file, or is damaged ({error})") from None
    if bands[-1] == "A":
        colours, alpha = pixels[..., :-1], pixels[..., -1]
        return (colours != 0).any(axis=-1) if (alpha == OPAQUE).all() else alpha != 0
    return (pixels != 0).any(axis=-1) if len(bands) > 1 else pixels != 0
