"""The masks of one image: run lengths inside boxes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

SMALLEST_SIDE = 2


class Region(NamedTuple):
    """What a segmenter found: pixels inside a rectangle.

    Args:
        x0, y0: the rectangle's upper left corner in the image.
        bitmap: bool, height×width of the rectangle.
        scores: one number for each of the segmenter's score names.
    """

    x0: int
    y0: int
    bitmap: NDArray[np.bool_]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Masks:
    """The m masks of one image, largest area first.

    Args:
        height, width: the image's size in pixels.
        counts: m run-length codes (COCO's compressed counts), each of the mask inside its box.
        boxes: int64, m×4, tight half-open pixel coordinates (x0, y0, x1, y1).
        areas: int64, m, pixels.
        scores: float32, m×s, what the segmenter says of each mask.
    """

    height: int
    width: int
    counts: Sequence[bytes]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, height: int, width: int, regions: Iterable[Region], num_scores: int) -> "Masks":
        """Trims regions to tight boxes, drops those one pixel wide or high, sorts by area.

        Equal areas keep the order in which the segmenter gave them.
        """
        trimmed = [_trim(region) for region in regions]
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
        """Returns a mask of the whole image as pycocotools and SAM speak it."""
        return rle.encode(np.asfortranarray(self.full(mask), dtype=np.uint8))


def encode(bitmap: NDArray[np.bool_]) -> bytes:
    """Returns COCO's compressed run lengths of a bitmap, without its size."""
    return bytes(rle.encode(np.asfortranarray(bitmap, dtype=np.uint8))["counts"])


def decode(counts: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the bitmap, bool height×width, that `encode` was given."""
    return rle.decode({"size": [height, width], "counts": counts}).astype(bool)


def _trim(region: Region) -> Region:
    rows = np.flatnonzero(region.bitmap.any(axis=1))
    columns = np.flatnonzero(region.bitmap.any(axis=0))
    if len(rows) == 0:
        return region._replace(bitmap=region.bitmap[:0, :0])
    inside = region.bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Region(region.x0 + columns[0], region.y0 + rows[0], inside, region.scores)


def _box(region: Region) -> tuple[int, int, int, int]:
    height, width = region.bitmap.shape
    return region.x0, region.y0, region.x0 + width, region.y0 + height
