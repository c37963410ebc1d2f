"""Felzenszwalb's graph-based segmentation (Felzenszwalb & Huttenlocher, 2004) at several scales."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pydantic import Field

from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter, register


@register
class Felzenszwalb(Segmenter):
    """Segments at several scales and merges the regions of all; needs no weights and no GPU.

    A mask's score is the share of the scales that found a region with nearly the same box.

    Args:
        scales: scikit-image's parameter `scale` of each segmentation; larger values give larger
            regions.
        sigma: standard deviation of the Gaussian that smooths the image first, in pixels.
        min_area: regions below this fraction of the image, 0..1, are merged into a neighbour.
        max_side: images are segmented with at most this many pixels a side, so that a scale means
            the same for a thumbnail and for a 12-megapixel image; masks have the image's own
            resolution.
        max_box_iou: of regions whose boxes have a larger IoU than this, in (0, 1], only the largest
            is kept.
    """

    label: ClassVar[str] = "Felzenszwalb"
    name: Literal["felzenszwalb"] = "felzenszwalb"
    version: Literal[1]
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    sigma: Annotated[float, Field(ge=0)]
    min_area: Annotated[float, Field(ge=0, lt=1)]
    max_side: Annotated[int, Field(ge=16)]
    max_box_iou: Annotated[float, Field(gt=0, le=1)]

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments images on the CPU; see `Segmenter.segment`."""
        return [self._segment_one(image) for image in images]

    def _segment_one(self, image: NDArray[np.uint8]) -> Masks:
        height, width = image.shape[:2]
        small = _shrink(image, self.max_side)
        rows = np.arange(height) * small.shape[0] // height
        columns = np.arange(width) * small.shape[1] // width
        regions: list[Region] = []
        for number, scale in enumerate(self.scales):
            labels = self._labels(small, scale)[rows[:, None], columns]
            regions += _regions(labels, number)
        return Masks.of(height, width, self._distinct(regions), len(self.score_names))

    def _labels(self, image: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
        from skimage.segmentation import felzenszwalb

        smallest = round(self.min_area * image.shape[0] * image.shape[1])
        return felzenszwalb(image, scale, self.sigma, min_size=smallest, channel_axis=-1)

    def _distinct(self, regions: list[Region]) -> list[Region]:
        """Removes near-duplicates and computes the scores of the other regions.

        Args:
            regions: the regions, with the index of the scale that found each in place of its score.
        """
        regions.sort(key=lambda region: -int(region.bitmap.sum()))
        boxes = np.array(
            [(r.x0, r.y0, r.bitmap.shape[1], r.bitmap.shape[0]) for r in regions], np.float64
        )
        alike = rle.iou(boxes, boxes, [0] * len(boxes)) > self.max_box_iou
        kept: list[int] = []
        for place in range(len(regions)):
            if not alike[place, kept].any():
                kept.append(place)
        found_by = np.array([region.scores[0] for region in regions])
        shares = [len(np.unique(found_by[row])) / len(self.scales) for row in alike]
        return [regions[place]._replace(scores=(shares[place],)) for place in kept]


def _shrink(image: NDArray[np.uint8], max_side: int) -> NDArray[np.float64]:
    factor = min(1.0, max_side / max(image.shape[:2]))
    size = [max(1, round(side * factor)) for side in image.shape[:2]]
    if factor == 1.0:
        return image / 255.0
    from skimage.transform import resize

    return resize(image, size, order=1, anti_aliasing=True)


def _regions(labels: NDArray[np.int64], scale: int) -> Iterator[Region]:
    from scipy.ndimage import find_objects

    for number, place in enumerate(find_objects(labels + 1)):
        if place is not None:
            rows, columns = place
            yield Region(columns.start, rows.start, labels[place] == number, (float(scale),))
