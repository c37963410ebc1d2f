"""Reading and writing masks in COCO's JSON format."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TextIO

import numpy as np
import zarr
from numpy.typing import NDArray
from pycocotools import mask as rle
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file
from pipeline.masks.masks import NO_PART, Masks, Region
from pipeline.masks.names import form
from pipeline.masks.store import FIELDS, MaskStore
from pipeline.progress import examples, track

SMALLEST_POLYGON = 6
# Fractions of sides lie in 0..1, or a little outside where a mask is cut by the image's border.
IN_THE_CORNER = 2
LONGEST_NUMBER = 7
CATEGORY = 1

Id = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]
Run = Annotated[int, Field(ge=0, lt=2**32)]
Polygons = list[list[FiniteFloat]]


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Run lengths in column-major order, alternately outside and inside the mask.

    Args:
        size: height and width of the image in pixels.
        counts: the run lengths; text is in COCO's compressed format.
    """

    size: tuple[Side, Side]
    counts: str | list[Run]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One mask. A polygon is x, y, x, y, … in pixels; several polygons form one mask.

    Annotations of boxes only have no `segmentation`, or an empty one. What `part`, `level` and
    `foreground` say, `Region` says.
    """

    id: Id
    image_id: Id
    segmentation: RunLengths | Polygons | None = None
    score: FiniteFloat | None = None
    predicted_iou: FiniteFloat | None = None
    part: Annotated[int, Field(ge=NO_PART, lt=2**31)] = NO_PART
    level: Annotated[int, Field(ge=0, lt=2**31)] = 0
    foreground: bool = True


@dataclass(frozen=True, slots=True)
class Image:
    """An image's entry: `file_name` is its path, or the end of it."""

    id: Id
    file_name: Annotated[str, Field(min_length=1)]
    height: Side
    width: Side


@dataclass(frozen=True, slots=True)
class Content:
    """The keys of a file that are read; others are ignored."""

    images: Annotated[list[Image], Field(min_length=1)]
    annotations: list[Annotation]


class CocoMasks:
    """Reads the masks in a COCO JSON file.

    Args:
        path: path of the JSON file.

    Raises:
        ProtoMaskError: the file is missing, has another format, contradicts itself, or its polygons
            are not in pixels.
    """

    what = "images"

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _parse(path)
        self.images: dict[str, Image] = {}
        for image in content.images:
            twin = self.images.setdefault(image.file_name, image)
            if twin is not image:
                raise ProtoMaskError(
                    f"{path}: images {twin.id} and {image.id} are both called "
                    f"{image.file_name!r}; write each one's path below the data set's folder"
                )
        self.example = next(iter(self.images))
        self._by_last: dict[str, list[str]] = {}
        for name in self.images:
            self._by_last.setdefault(_parts(form(name))[-1], []).append(name)
        self._annotations = self._by_image(content)
        self._empty = [item.id for item in content.annotations if _is_empty(item.segmentation)]
        self._in_the_corner = _in_the_corner(path, content.annotations)

    def __contains__(self, name: str) -> bool:
        return name in self.images

    def __len__(self) -> int:
        """Returns the number of images in the file."""
        return len(self.images)

    def related(self, image: str) -> list[list[str]]:
        """Returns the names in the file that may mean an image: one path is the end of the other.

        Args:
            image: path of the image relative to the data set's root.

        Returns:
            The levels of `Named.related`.
        """
        wanted, parts = PurePosixPath(image).parts, _parts(form(image))
        same_last = self._by_last.get(parts[-1], [])
        loose = [name for name in same_last if _one_ends_the_other(_parts(form(name)), parts)]
        near = [name for name in loose if _one_ends_the_other(_parts(name), wanted)]
        return [[image] if image in self.images else [], near, loose]

    def advice(self, image: str) -> str:
        """Returns how a photograph has to be named."""
        return f"`file_name` has to be {image!r}, or an end of that"

    def unused(self, used: set[str]) -> list[str]:
        """Returns the names in the file that are not in use."""
        return [name for name in self.images if name not in used]

    def names_of(self, name: str) -> list[str]:
        """Returns the names that an image's masks may be found by: its own."""
        return [name]

    def remarks(self) -> list[str]:
        """Returns what is to be said of all annotations: which of them cannot be masks."""
        said = {
            "have no mask in `segmentation` (run lengths, or polygons of 3 points)": self._empty,
            "lie in the image's first 2 pixels, as fractions of its sides would": (
                self._in_the_corner
            ),
        }
        return [
            f"{len(ids)} annotations in {self.path} {what}: {examples(ids)}"
            for what, ids in said.items()
            if ids
        ]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image with their scores, parts, levels, and what is foreground.

        The score is COCO's `score`, else SAM's `predicted_iou`, else 1.

        Args:
            name: name of the image in the file, one of `images`.
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ProtoMaskError: the image has another size in the file, or a mask is damaged.
        """
        image = self.images[name]
        if (image.height, image.width) != (height, width):
            raise ProtoMaskError(
                f"{self.path}: {name} has {image.width}×{image.height} pixels there, but the "
                f"upright photograph {width}×{height}"
            )
        return [
            self._region(annotation, annotation.segmentation, image)
            for annotation in self._annotations[image.id]
            if annotation.segmentation and not _is_empty(annotation.segmentation)
        ]

    def _region(
        self, annotation: Annotation, segmentation: RunLengths | Polygons, image: Image
    ) -> Region:
        try:
            runs = _runs(segmentation, image.height, image.width)
        except ValueError as error:
            raise ProtoMaskError(f"{self.path}: annotation {annotation.id}: {error}") from None
        return _tight(runs, image.height, _score(annotation))._replace(
            part=annotation.part, level=annotation.level, foreground=annotation.foreground
        )

    def _by_image(self, content: Content) -> dict[int, list[Annotation]]:
        found: dict[int, list[Annotation]] = {image.id: [] for image in content.images}
        if len(found) < len(content.images):
            raise ProtoMaskError(f"{self.path}: two images have the same id")
        for annotation in content.annotations:
            if annotation.image_id not in found:
                raise ProtoMaskError(
                    f"{self.path}: annotation {annotation.id} is of image {annotation.image_id}, "
                    "which the file does not list"
                )
            found[annotation.image_id].append(annotation)
        return found


def write_coco(path: Path, store: MaskStore, names: Sequence[str]) -> None:
    """Writes a mask store as COCO JSON, one mask in each line; the same store gives the same bytes.

    Args:
        path: path of the JSON file, which is replaced.
        store: the mask store. An annotation's `score` is the first of a mask's scores; several
            scores are also written under their own names. Its `part` is left out where the
            segmenter knows none; `info` has the parts' names.
        names: the `file_name` of each of the store's images.

    Raises:
        ProtoMaskError: the store is damaged, or a score is not finite.
    """
    about = store.about
    info = {
        "description": "Masks that ProtoMask found",
        "segmenter": about["segmenter"],
        "dataset": about["dataset"],
        "part_names": about["part_names"],
    }
    sizes = zip(about["images"]["width"], about["images"]["height"], strict=True)
    images = (
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), start=1)
    )
    with atomic_file(path) as part, part.open("w", encoding="ascii") as file:
        file.write(f'{{\n"info": {json.dumps(info)},\n"categories": ')
        file.write(json.dumps([{"id": CATEGORY, "name": "mask", "supercategory": ""}]))
        _write_list(file, "images", images)
        _write_list(file, "annotations", _annotations(store))
        file.write("\n}\n")


def _annotations(store: MaskStore) -> Iterator[dict[str, Any]]:
    fields: Any = zarr.open_array(store.path / "regions", mode="r").attrs["fields"]
    score_names = fields[len(FIELDS) :]
    number = 0
    for row in track(range(len(store)), "Writing masks"):
        found = store.masks(row)
        if not np.isfinite(found.scores).all():
            raise ProtoMaskError(
                f"{store.path}: a score of {store.ids[row]} is no finite number, which JSON lacks"
            )
        for mask in range(len(found)):
            number += 1
            yield {
                "id": number,
                "image_id": row + 1,
                "category_id": CATEGORY,
                "iscrowd": 0,
                "area": int(found.areas[mask]),
                "bbox": _corner_and_size(found.boxes[mask]),
                **_scores(score_names, found.scores[mask]),
                **_kind(found, mask),
                "segmentation": {
                    "size": [found.height, found.width],
                    "counts": found.coco(mask)["counts"].decode("ascii"),
                },
            }


def _scores(names: list[str], scores: NDArray[np.float32]) -> dict[str, float]:
    values = scores.tolist()
    several = dict(zip(names, values, strict=True)) if len(names) > 1 else {}
    return {"score": values[0], **several}


def _kind(found: Masks, mask: int) -> dict[str, int | bool]:
    part = int(found.parts[mask])
    return {
        **({} if part == NO_PART else {"part": part}),
        "level": int(found.levels[mask]),
        "foreground": bool(found.foreground[mask]),
    }


def _corner_and_size(box: NDArray[np.int64]) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def _write_list(file: TextIO, name: str, items: Iterable[dict[str, Any]]) -> None:
    file.write(f',\n"{name}": [')
    for number, item in enumerate(items):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(item, allow_nan=False))
    file.write("\n]")


def _parse(path: Path) -> Content:
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return TypeAdapter(Content).validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        raise ProtoMaskError(f"{path} is damaged: {problems[0]['msg']}")
    # A mask may have several formats; the error of the attempt that came furthest is relevant.
    first = [problem for problem in problems if problem["loc"][:2] == problems[0]["loc"][:2]]
    furthest = max(first, key=lambda problem: len(problem["loc"]))
    place = _named(text, furthest["loc"])
    raise ProtoMaskError(f"{path} is no COCO JSON of masks: {place}: {furthest['msg']}")


def _named(text: bytes, place: tuple[int | str, ...]) -> str:
    """Returns the location of an error, with the id of the image or annotation if it has one."""
    if len(place) < 2:
        return str(place[0]) if place else "the file"
    section, item, *keys = place
    found = json.loads(text)[section][item]
    number = found.get("id") if isinstance(found, dict) else None
    what = f"{section}.{item}" if number is None else f"{str(section).rstrip('s')} {number}"
    # pydantic also names the types that it tried, such as RunLengths and list[int].
    fields = [str(key) for key in keys if isinstance(key, int) or re.fullmatch("[a-z_]+", key)]
    return ": ".join([what, ".".join(fields)]) if fields else what


def _score(annotation: Annotation) -> float:
    scores = (annotation.score, annotation.predicted_iou, 1.0)
    return next(score for score in scores if score is not None)


def _is_empty(segmentation: RunLengths | Polygons | None) -> bool:
    """Returns whether there is no mask: no run lengths, and no polygon of three points."""
    if isinstance(segmentation, RunLengths):
        return False
    return not any(_has_an_area(polygon) for polygon in segmentation or [])


def _has_an_area(polygon: list[float]) -> bool:
    return len(polygon) >= SMALLEST_POLYGON or len(polygon) % 2 == 1


def _in_the_corner(path: Path, annotations: list[Annotation]) -> list[int]:
    """Returns the ids of the annotations whose polygons lie in the image's first two pixels.

    Raises:
        ProtoMaskError: all do, so that they cannot be in pixels.
    """
    given = [item for item in annotations if not _is_empty(item.segmentation)]
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


def _parts(name: str) -> tuple[str, ...]:
    """Splits a path that may have Windows separators."""
    return PurePosixPath("/", name.replace("\\", "/")).parts[1:] or (name,)


def _one_ends_the_other(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _runs(segmentation: RunLengths | Polygons, height: int, width: int) -> NDArray[np.int64]:
    """Returns the run lengths of a mask in column-major order, the first of them outside.

    Raises:
        ValueError: they do not give a mask of this size.
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _has_an_area(polygon)]
        _refuse_odd_polygons(polygons, max(height, width))
        joined = rle.merge(rle.frPyObjects(polygons, height, width))
        return _decompressed(joined["counts"])
    if segmentation.size != (height, width):
        raise ValueError(
            f"its mask has {segmentation.size[0]} rows and {segmentation.size[1]} columns, "
            f"its image {height} and {width}"
        )
    if isinstance(segmentation.counts, list):
        runs = np.array(segmentation.counts, np.int64)
    else:
        runs = _decompressed(segmentation.counts.encode())
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"its run lengths are damaged: they do not cover {height}×{width} pixels")
    return runs


def _refuse_odd_polygons(polygons: Polygons, side: int) -> None:
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers; it takes x and y of each point")
        if np.abs(polygon).max() > 2 * side:
            raise ValueError("a polygon reaches far out of the image")


def _decompressed(counts: bytes) -> NDArray[np.int64]:
    """Returns the run lengths in COCO's compressed counts.

    Each number is written in digits of 5 bits, the lowest first; 32 is added to all digits but the
    last, whose highest bit is the sign. From the fourth number on, the difference to the number two
    before is written. pycocotools decodes as well, but returns uninitialised memory for counts that
    end early.

    Raises:
        ValueError: the counts are invalid.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits < 32)
    lengths = np.diff(last, prepend=-1)
    if (
        not len(digits)
        or last[-1:].tolist() != [len(digits) - 1]
        or not 0 <= digits.min() <= digits.max() < 64
        or lengths.max() > LONGEST_NUMBER
    ):
        raise ValueError("its compressed run lengths are damaged")
    first = last - lengths + 1
    place = 5 * (np.arange(len(digits)) - np.repeat(first, lengths))
    runs = np.add.reduceat((digits & 31) << place, first)
    runs -= np.where(digits[last] & 16, 1 << 5 * lengths, 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _tight(runs: NDArray[np.int64], height: int, score: float) -> Region:
    """Returns a mask in its box; only the columns that it touches are decoded."""
    ends = runs.cumsum()
    inside = 2 * np.flatnonzero(runs[1::2]) + 1
    if len(inside) == 0:
        return Region(0, 0, np.zeros((0, 0), bool), (score,))
    x0 = int(ends[inside[0] - 1]) // height
    x1 = -(-int(ends[inside[-1]]) // height)
    drawn = np.diff(np.clip(ends - x0 * height, 0, (x1 - x0) * height), prepend=0)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, drawn).reshape(x1 - x0, height)
    rows = np.flatnonzero(columns.any(axis=0))
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    return Region(x0, y0, columns[:, y0:y1].T.copy(), (score,))
