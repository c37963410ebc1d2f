"""COCO JSON: a file, or a folder with one or several, such as one for each split."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from pipeline.errors import ProtoMaskError
from pipeline.masks.categories import Categories
from pipeline.masks.json_files import parse
from pipeline.masks.layout import NamedLayout, Place, register
from pipeline.masks.masks import NO_PART, Region
from pipeline.masks.path_ends import split
from pipeline.masks.png import Reading
from pipeline.masks.segmentation import Mask
from pipeline.progress import examples

# Fractions of sides lie in 0..1, or a little outside where a mask is cut by the image's border.
IN_THE_CORNER = 2

Id = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation(Mask):
    """One mask, or a box without one."""

    id: Id
    image_id: Id
    category_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image's entry: `file_name` is its path, or the end of it.

    `path` (Label Studio) and the name in `extra` (Roboflow) may say more. A side of 0 or null is
    one that the tool did not know.
    """

    id: Id
    file_name: Annotated[str, Field(min_length=1)]
    height: Side
    width: Side
    path: Any = None
    extra: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The keys of a file that are read; others are ignored."""

    images: Annotated[list[Image], Field(min_length=1)]
    annotations: list[Annotation]
    categories: Any = None
    info: Any = None


FORM = TypeAdapter(Content)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image with its masks.

    Args:
        file: the file that lists it.
        image: its entry there.
        annotations: its annotations there.
        parts: the part of each category, by id.
    """

    file: Path
    image: Image
    annotations: list[Annotation]
    parts: dict[int, int]


@register
class CocoMasks(NamedLayout[Entry]):
    """Reads the masks in COCO JSON files."""

    name: ClassVar[str] = "coco"
    title: ClassVar[str] = "COCO JSON"
    what: ClassVar[str] = "images"
    rank: ClassVar[int] = 2

    def __init__(self, path: Path, files: Sequence[str], reading: Reading = "mask") -> None:
        super().__init__(path, files, reading)
        contents = {file: parse(path / file, FORM, "COCO JSON of masks") for file in files}
        self.part_names, parts = _parts(list(contents.values()))
        entries = [
            (file, entry)
            for (file, content), its in zip(contents.items(), parts, strict=True)
            for entry in _entries(path / file, content, its)
        ]
        named = _named(path, entries)
        spellings = {
            name: [name, *_spellings(file, entry.image)]
            for (file, entry), name in zip(entries, named, strict=True)
        }
        self.hold(named, spellings)
        annotations = [item for _, entry in entries for item in entry.annotations]
        self._empty = [item.id for item in annotations if item.is_empty]
        self._in_the_corner = _in_the_corner(path, annotations)

    @classmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns the COCO JSON files of a folder; a single file of no other layout counts as one.

        See `Layout.reads`.
        """
        wanted = ("coco",) if place.path.is_dir() else ("coco", "other")
        return [file for file, kind in place.jsons.items() if kind in wanted]

    def advice(self, image: str) -> str:
        """Returns how a photograph has to be named."""
        return f"`file_name` has to be {image!r}, or an end of that"

    def remarks(self) -> list[str]:
        """Returns which files are not read, and which annotations cannot be masks."""
        said = {
            "have no mask in `segmentation` (run lengths, or polygons of 3 points)": self._empty,
            "lie in the image's first 2 pixels, as fractions of its sides would": (
                self._in_the_corner
            ),
        }
        found = [
            f"{len(ids)} annotations in {self.path} {what}: {examples(ids)}"
            for what, ids in said.items()
            if ids
        ]
        return [*super().remarks(), *found]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image; see `Layout.regions`.

        Its part is what `part` says, or, where no annotation of the files says one, its category.

        Raises:
            ProtoMaskError: the image has another size in the file, or a mask is damaged.
        """
        entry = self.entries[name]
        image = entry.image
        known = image.height and image.width
        if known and (image.height, image.width) != (height, width):
            raise ProtoMaskError(
                f"{entry.file}: {name} has {image.width}×{image.height} pixels there, but the "
                f"upright photograph {width}×{height}"
            )
        return [
            _region(entry, annotation, height, width)
            for annotation in entry.annotations
            if not annotation.is_empty
        ]


def _region(entry: Entry, annotation: Annotation, height: int, width: int) -> Region:
    try:
        region = annotation.region(height, width)
    except ValueError as error:
        raise ProtoMaskError(f"{entry.file}: annotation {annotation.id}: {error}") from None
    if annotation.category_id not in entry.parts:
        return region
    return region._replace(part=entry.parts[annotation.category_id])


def _parts(contents: Sequence[Content]) -> tuple[dict[int, str], list[dict[int, int]]]:
    """Returns the names of the parts by number, and the part of each category in each file.

    Where annotations or `info` speak of parts, categories are none.
    """
    named = [_names_in(content.info) for content in contents]
    if any(names is not None for names in named) or any(
        annotation.part != NO_PART for content in contents for annotation in content.annotations
    ):
        return {part: name for names in named for part, name in (names or {}).items()}, [
            {} for _ in contents
        ]
    categories = Categories(
        [content.categories for content in contents],
        [[item.category_id for item in content.annotations] for content in contents],
    )
    return categories.part_names, [categories.parts(file) for file in range(len(contents))]


def _names_in(info: Any) -> dict[int, str] | None:
    """Returns the parts' names that `masks export` writes; None in a file of another origin."""
    names = info.get("part_names") if isinstance(info, dict) else None
    if not isinstance(names, dict):
        return None
    return {int(part): str(name) for part, name in names.items() if part.isdecimal()}


def _entries(file: Path, content: Content, parts: dict[int, int]) -> Iterator[Entry]:
    """Yields the images of a file."""
    found: dict[int, list[Annotation]] = {image.id: [] for image in content.images}
    if len(found) < len(content.images):
        raise ProtoMaskError(f"{file}: two images have the same id")
    for annotation in content.annotations:
        if annotation.image_id not in found:
            raise ProtoMaskError(
                f"{file}: annotation {annotation.id} is of image {annotation.image_id}, which the "
                "file does not list"
            )
        found[annotation.image_id].append(annotation)
    for image in content.images:
        yield Entry(file, image, found[image.id], parts)


def _named(path: Path, entries: Sequence[tuple[str, Entry]]) -> dict[str, Entry]:
    """Returns images by `file_name`, below its file's folder where several files have the same.

    Raises:
        ProtoMaskError: two images have the same name all the same.
    """
    files: dict[str, set[str]] = {}
    for file, entry in entries:
        files.setdefault(entry.image.file_name, set()).add(file)
    named: dict[str, Entry] = {}
    for file, entry in entries:
        name = entry.image.file_name
        if len(files[name]) > 1:
            name = _beside(file, name)
        twin = named.setdefault(name, entry)
        if twin is not entry:
            raise ProtoMaskError(
                f"{path}: images {twin.image.id} and {entry.image.id} are both called {name!r}; "
                "write each one's path below the data set's folder"
            )
    return named


def _spellings(file: str, image: Image) -> Iterator[str]:
    """Yields the paths that an image's entry gives, or the ends of them."""
    yield _beside(file, image.file_name)
    # Label Studio gives local files as `/data/local-files/?d=PATH`.
    path = str(image.path or "").rpartition("?d=")[2]
    if len(split(image.file_name)) == 1 and path:
        yield path
    if isinstance(image.extra, dict) and isinstance(name := image.extra.get("name"), str) and name:
        yield name


def _beside(file: str, name: str) -> str:
    """Returns a name below the folder of the file that has it, as Roboflow lays photographs."""
    return str(PurePosixPath(file).parent / name)


def _in_the_corner(path: Path, annotations: Iterable[Annotation]) -> list[int]:
    """Returns the ids of the annotations whose polygons lie in the image's first two pixels.

    Raises:
        ProtoMaskError: all do, so that they cannot be in pixels.
    """
    given = [item for item in annotations if not item.is_empty]
    found = [
        item.id
        for item in given
        if isinstance(item.segmentation, list)
        and all(abs(value) < IN_THE_CORNER for polygon in item.segmentation for value in polygon)
    ]
    if given and len(found) == len(given):
        raise ProtoMaskError(
            f"{path}: all polygons lie in the first {IN_THE_CORNER} pixels of their images: they "
            "seem to be fractions of the sides, and have to be in pixels; multiply each x by its "
            "image's width, and each y by its height"
        )
    return found
