"""Masks from existing files, in any of the layouts that are known."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr, field_validator

from pipeline.datasets import listing
from pipeline.datasets.image_file import SUFFIXES
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.masks.layout import Layout, layout_of
from pipeline.masks.masks import Masks
from pipeline.masks.names import Meanings
from pipeline.masks.png import Reading
from pipeline.masks.segmenter import Machine, Segmenter, Source, register
from pipeline.progress import examples


@register
class Imported(Segmenter):
    """Reads masks from the file or folder `Machine.masks`, whose path may differ between machines.

    An image without masks there has none.

    Args:
        sha256: hash of the masks' content, which `protomask masks hash` prints.
        png: what a PNG file in a folder holds: `mask`, one mask; `labels`, one mask for each of its
            values but 0.
    """

    label: ClassVar[str] = "imported masks"
    name: Literal["import"] = "import"
    version: Literal[4]
    sha256: str
    png: Reading

    @field_validator("sha256", mode="before")
    @classmethod
    def _is_a_hash(cls, value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(
                f"is {value!r}, but has to be the hash of the masks to import: {_command('PATH')}"
            )
        return value

    _part_names: Mapping[int, str] = PrivateAttr(default_factory=dict)
    _names: Mapping[str, str | None] = PrivateAttr(default_factory=dict)

    @property
    def part_names(self) -> Mapping[int, str]:
        """The names of the categories by their numbers; empty before `named`."""
        return self._part_names

    def named(self, sources: Sequence[Source], folder: Path, machine: Machine) -> Segmenter:
        """Returns the segmenter with the masks' categories, and the name there of each image.

        They are kept beside the finished masks, for when the masks to import are elsewhere; see
        `Segmenter.named`.
        """
        kept = folder / "names.json"
        if machine.masks is not None and machine.masks.exists():
            given = _open(machine.masks, self.sha256, self.png)
            images = {source.name: _find(given, source) for source in sources}
            with atomic_file(kept) as part:
                names = {"parts": dict(given.part_names), "images": images}
                part.write_text(json.dumps(names), encoding="utf-8")
        named = self.model_copy()
        named._part_names, named._names = _read_names(kept)
        return named

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Raises an error: imported masks are found by an image's path, see `segment_sources`."""
        raise ProtoMaskError(
            "there are no masks for other photographs than those of the data set, because the "
            "segmenter is `import`; `protomask predict` needs one that finds masks itself"
        )

    def identity(self, source: Source) -> str:
        """Returns a hash of an image's bytes, path, and the name by which its masks are found.

        Which name that is depends on all other images, too: it means the one that it fits best.
        """
        told = [source.sha256, source.name, self._names.get(source.name)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

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
        given = _open(machine.masks, self.sha256, self.png)
        names = [_find(given, source) for source in sources]
        if sources and not any(names):
            _refuse_strangers(given, sources[0])
        return [
            self._masks(given, source, name) for source, name in zip(sources, names, strict=True)
        ]

    def remarks(self, sources: Sequence[Source], machine: Machine) -> list[str]:
        """Says what the masks were taken for, and which of them belong to none of the images.

        See `Segmenter.remarks`.

        Nothing can be said where the masks lie on another machine, and are remembered here.
        """
        if machine.masks is None or not machine.masks.exists() or not sources:
            return []
        given = _open(machine.masks, self.sha256, self.png)
        names = [_find(given, source) for source in sources]
        used = {name for name in names if name}
        return [given.recognised(), *_unused(given, sources, used), *given.remarks()]

    def _masks(self, given: Layout, source: Source, name: str | None) -> Masks:
        height, width = source.read().shape[:2]
        regions = [] if name is None else given.regions(name, height, width)
        return Masks.of(height, width, regions, len(self.score_names))


def _read_names(path: Path) -> tuple[dict[int, str], dict[str, str | None]]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return {int(part): name for part, name in names["parts"].items()}, names["images"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}


def content_hash(path: Path) -> str:
    """Returns the SHA-256 of masks: of a file's bytes, or of those in a folder that are read.

    A folder's is that of the lines `HASH  PATH` that `sha256sum` prints for its files, sorted by
    path. Which these are, its layout says: PNG files, or JSON files.

    Args:
        path: path of the file or of the folder.

    Returns:
        64 hex digits.

    Raises:
        ProtoMaskError: there is no such file, or no masks in the folder.
    """
    if path.is_file():
        return sha256(path)
    _, files = layout_of(path)
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda file: sha256(path / file), sorted(files))
        lines = [f"{digest}  {file}\n" for digest, file in zip(hashes, sorted(files), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _command(path: Path | str) -> str:
    return (
        f"`dvc exp run -S segmenter=import -S runtime.masks={path} "
        f"-S segmenter.sha256=$(protomask masks hash {path})`"
    )


@lru_cache(maxsize=1)
def _open(path: Path, sha256: str, png: Reading) -> Layout:
    """Checks and reads the masks, once in each process."""
    found = content_hash(path)
    if found != sha256:
        raise ProtoMaskError(
            f"runtime.masks: {path} holds other masks than segmenter.sha256 says ({found[:12]}… "
            f"instead of {sha256[:12]}…); if they are the right ones: {_command(path)}"
        )
    layout, files = layout_of(path)
    return layout(path, files, png)


def _find(given: Layout, source: Source) -> str | None:
    """Returns the name in the masks that means an image; None without one.

    Raises:
        ProtoMaskError: several names do, or the name may mean another image as well.
    """
    if source.name in given:
        return source.name
    if not any(given.related(source.name)):
        return None
    return _meanings(given, source.root).name(source.name)


def _unused(given: Layout, sources: Sequence[Source], used: set[str]) -> list[str]:
    """Says how many of the names are of none of the images, and why."""
    unused = given.unused(used)
    if not unused:
        return []
    root, images = sources[0].root, {source.name for source in sources}
    reasons: dict[str, list[str]] = {}
    for name in unused:
        meant = {
            image
            for alias in given.names_of(name)
            for image in _meanings(given, root).images(alias)
        }
        reason = f"of no photograph in {root}"
        if meant:
            reason = "of photographs that the index leaves out"
        if meant & images:
            reason = "of photographs for which others there are named more exactly"
        reasons.setdefault(reason, []).append(name)
    return [
        f"{len(names)} of {len(given)} {given.what} in {given.path} are {reason}: {examples(names)}"
        for reason, names in reasons.items()
    ]


@lru_cache(maxsize=1)
def _meanings(given: Layout, root: Path) -> Meanings:
    """Relates the masks' names to all image files below a folder, once in each process."""
    files = listing.visible_files(root)
    images = [file for file in files if PurePosixPath(file).suffix.lower() in SUFFIXES]
    return Meanings(given, root, images)


def _refuse_strangers(given: Layout, source: Source) -> None:
    """Raises if none of the masks belongs to the image's data set."""
    if not len(_meanings(given, source.root)):
        raise ProtoMaskError(
            f"{given.path} has masks of no photograph in {source.root}: it names "
            f"{given.example!r}, the data set has {source.name!r}: {given.advice(source.name)}"
        )
