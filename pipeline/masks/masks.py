"""The masks of one image, as run lengths inside boxes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.errors import ProtoMaskError

SMALLEST_SIDE = 2
NO_PART = -1


class Region(NamedTuple):
    """A region found by a segmenter: pixels inside a rectangle.

    Args:
        x0, y0: the rectangle's upper left corner in pixels of the image.
        bitmap: bool, height×width of the rectangle.
        scores: one value for each of the segmenter's score names.
        part: number of the part that it shows, the same in all images; -1 where the segmenter
            knows none.
        level: 0 for a whole object, 1, 2, … for parts that are ever finer.
        foreground: whether it is of an object rather than of background.
    """

    x0: int
    y0: int
    bitmap: NDArray[np.bool_]
    scores: tuple[float, ...]
    part: int = NO_PART
    level: int = 0
    foreground: bool = True


@dataclass(frozen=True)
class Masks:
    """The m masks of one image, largest area first.

    Args:
        height, width: size of the image in pixels.
        counts: COCO's compressed run lengths of each mask inside its box.
        boxes: int64 m×4, tight boxes, half-open (x0, y0, x1, y1) in pixels.
        areas: int64 m, number of pixels of each mask.
        scores: float32 m×s, the segmenter's scores of each mask.
        parts: int32 m, number of the part that each mask shows, the same in all images; -1 where
            the segmenter knows none.
        levels: int32 m, 0 for a whole object, 1, 2, … for parts that are ever finer; 0 for
            segmenters that know no levels.
        foreground: bool m, whether each mask is of an object rather than of background; true for
            segmenters that do not know.
        dropped: number of regions that were too small to be masks.
    """

    height: int
    width: int
    counts: Sequence[bytes]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    scores: NDArray[np.float32]
    parts: NDArray[np.int32]
    levels: NDArray[np.int32]
    foreground: NDArray[np.bool_]
    dropped: int = 0

    @classmethod
    def of(cls, height: int, width: int, regions: Iterable[Region], num_scores: int) -> "Masks":
        """Trims regions to tight boxes, drops those one pixel wide or high, and sorts them by area.

        Regions of equal area keep their order.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.
            regions: the regions found by a segmenter.
            num_scores: s, number of scores of each region.

        Raises:
            ProtoMaskError: a region lies outside the image, or has another number of scores: a
                mistake of the segmenter.
        """
        trimmed = [_trim(region) for region in regions]
        for region in trimmed:
            _refuse_impossible(region, height, width, num_scores)
        kept = [region for region in trimmed if min(region.bitmap.shape) >= SMALLEST_SIDE]
        areas = np.array([region.bitmap.sum() for region in kept], np.int64)
        order = np.argsort(-areas, kind="stable")
        kept = [kept[place] for place in order]
        return cls(
            height,
            width,
            [encode(region.bitmap) for region in kept],
            np.array([_box(region) for region in kept], np.int64).reshape(-1, 4),
            areas[order],
            np.array([region.scores for region in kept], np.float32).reshape(-1, num_scores),
            np.array([region.part for region in kept], np.int32),
            np.array([region.level for region in kept], np.int32),
            np.array([region.foreground for region in kept], bool),
            len(trimmed) - len(kept),
        )

    def __len__(self) -> int:
        return len(self.counts)

    def inside(self, mask: int) -> NDArray[np.bool_]:
        """Returns a mask's pixels inside its box: bool, box height×box width."""
        x0, y0, x1, y1 = self.boxes[mask].tolist()
        return decode(self.counts[mask], y1 - y0, x1 - x0)

    def full(self, mask: int) -> NDArray[np.bool_]:
        """Returns a mask at the image's resolution: bool, height×width."""
        x0, y0, x1, y1 = self.boxes[mask].tolist()
        pixels = np.zeros((self.height, self.width), bool)
        pixels[y0:y1, x0:x1] = self.inside(mask)
        return pixels

    def coco(self, mask: int) -> dict:
        """Returns a mask of the whole image in the format of pycocotools and SAM."""
        return rle.encode(np.asfortranarray(self.full(mask), dtype=np.uint8))


def encode(bitmap: NDArray[np.bool_]) -> bytes:
    """Returns COCO's compressed run lengths of a bitmap (bool height×width), without its size."""
    return bytes(rle.encode(np.asfortranarray(bitmap, dtype=np.uint8))["counts"])


def decode(counts: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the bitmap, bool height×width, with these compressed run lengths."""
    return rle.decode({"size": [height, width], "counts": counts}).astype(bool)


def _trim(region: Region) -> Region:
    rows = np.flatnonzero(region.bitmap.any(axis=1))
    columns = np.flatnonzero(region.bitmap.any(axis=0))
    if len(rows) == 0:
        return region._replace(bitmap=region.bitmap[:0, :0])
    return region._replace(
        x0=region.x0 + columns[0],
        y0=region.y0 + rows[0],
        bitmap=region.bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1],
    )


def _refuse_impossible(region: Region, height: int, width: int, num_scores: int) -> None:
    x0, y0, x1, y1 = _box(region)
    if min(x0, y0) < 0 or x1 > width or y1 > height:
        raise ProtoMaskError(
            f"the segmenter found a region in columns {x0} to {x1} and rows {y0} to {y1} of an "
            f"image of {width}×{height} pixels: a mistake in its code"
        )
    if len(region.scores) != num_scores:
        raise ProtoMaskError(
            f"the segmenter gave a region {len(region.scores)} scores, and names {num_scores} "
            "(`score_names`): a mistake in its code"
        )


def _box(region: Region) -> tuple[int, int, int, int]:
    height, width = region.bitmap.shape
    return region.x0, region.y0, region.x0 + width, region.y0 + height
