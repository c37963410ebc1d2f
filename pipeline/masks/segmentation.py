"""A mask as JSON files have it: run lengths or polygons, with what is said of it."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pydantic import Field, FiniteFloat

from pipeline.masks.masks import NO_PART, Region

SMALLEST_POLYGON = 6
LONGEST_NUMBER = 7

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """One mask. A polygon is x, y, x, y, … in pixels; several polygons form one mask.

    Annotations of boxes only have no `segmentation`, or an empty one. What `part`, `level` and
    `foreground` say, `Region` says.
    """

    segmentation: RunLengths | Polygons | None = None
    score: FiniteFloat | None = None
    predicted_iou: FiniteFloat | None = None
    part: Annotated[int, Field(ge=NO_PART, lt=2**31)] = NO_PART
    level: Annotated[int, Field(ge=0, lt=2**31)] = 0
    foreground: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there are no run lengths, and no polygon of three points."""
        if isinstance(self.segmentation, RunLengths):
            return False
        return not any(_has_an_area(polygon) for polygon in self.segmentation or [])

    def region(self, height: int, width: int) -> Region:
        """Returns its pixels, score, part and level, and whether it is foreground.

        The score is COCO's `score`, else SAM's `predicted_iou`, else 1.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ValueError: the mask is damaged, or of an image of another size.
        """
        runs = _runs(self.segmentation or [], height, width)
        score = next(s for s in (self.score, self.predicted_iou, 1.0) if s is not None)
        return _tight(runs, height, score)._replace(
            part=self.part, level=self.level, foreground=self.foreground
        )


def _has_an_area(polygon: list[float]) -> bool:
    return len(polygon) >= SMALLEST_POLYGON or len(polygon) % 2 == 1


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
