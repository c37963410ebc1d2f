"""JSON of Segment Anything: a file an image, as in SA-1B, or as its script `amg.py` writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field, TypeAdapter

from pipeline.datasets.image_file import SUFFIXES
from pipeline.errors import ProtoMaskError
from pipeline.masks.json_files import parse
from pipeline.masks.layout import NamedLayout, Place, holds, register
from pipeline.masks.masks import Region
from pipeline.masks.png import Reading
from pipeline.masks.segmentation import Mask
from pipeline.progress import examples

Side = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Image:
    """The image that a file of SA-1B is of."""

    height: Side
    width: Side


@dataclass(frozen=True, slots=True)
class Content:
    """A file of SA-1B."""

    image: Image
    annotations: list[Mask]


FORM, LIST = TypeAdapter(Content), TypeAdapter(list[Mask])
WHAT = "JSON of Segment Anything"


@register
class SamMasks(NamedLayout[str]):
    """Reads the masks of each image from a file that is called like the image.

    A file is read when its image is asked for: SA-1B is large.
    """

    name: ClassVar[str] = "sam"
    title: ClassVar[str] = "Segment Anything's JSON, a file an image"
    what: ClassVar[str] = "JSON files"
    rank: ClassVar[int] = 3

    def __init__(self, path: Path, files: Sequence[str], reading: Reading = "mask") -> None:
        super().__init__(path, files, reading)
        named = {_stem(file or path.name): file for file in files}
        self.hold(named, {name: _spellings(name) for name in named}, suffixes=False)

    @classmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns the JSON files that hold one image's masks; see `Layout.reads`."""
        return [file for file, kind in place.jsons.items() if kind in ("image", "list")]

    def advice(self, image: str) -> str:
        """Returns how the JSON file of a photograph has to be named."""
        return f"its file has to be {_stem(image)}.json, or an end of that"

    def remarks(self) -> list[str]:
        """Returns which files are not read, and which have annotations without a mask."""
        empty = {
            f"{name}.json": sum(mask.is_empty for mask in self._masks(name)[1])
            for name in self.entries
        }
        without = [name for name, count in empty.items() if count]
        if not without:
            return super().remarks()
        return [
            *super().remarks(),
            f"{sum(empty.values())} annotations in {self.path} have no mask in `segmentation`, in "
            f"{len(without)} files: {examples(without)}",
        ]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image; see `Layout.regions`."""
        image, masks = self._masks(name)
        if image is not None and (image.height, image.width) != (height, width):
            raise ProtoMaskError(
                f"{self.path / self.entries[name]} is of an image of {image.width}×{image.height} "
                f"pixels, but the upright photograph has {width}×{height}"
            )
        return [
            self._region(name, number, mask, height, width)
            for number, mask in enumerate(masks)
            if not mask.is_empty
        ]

    def _region(self, name: str, number: int, mask: Mask, height: int, width: int) -> Region:
        try:
            return mask.region(height, width)
        except ValueError as error:
            raise ProtoMaskError(
                f"{self.path / self.entries[name]}: annotation {number} (from 0): {error}"
            ) from None

    def _masks(self, name: str) -> tuple[Image | None, list[Mask]]:
        path = self.path / self.entries[name]
        if holds(path) == "list":
            return None, parse(path, LIST, WHAT)
        content = parse(path, FORM, WHAT)
        return content.image, content.annotations


def _spellings(name: str) -> list[str]:
    """Returns the paths without suffix that a name may be: `a.jpg.json` is of `a.jpg`, too."""
    return [name, _stem(name)] if PurePosixPath(name).suffix.lower() in SUFFIXES else [name]


def _stem(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))
