"""Patches: a grid of equal boxes, the baseline without segmentation."""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter, register


@register
class Patches(Segmenter):
    """Divides an image into grid×grid boxes; every pixel lies in exactly one of them.

    Args:
        grid: number of boxes along each side of the image.
    """

    name: Literal["patches"] = "patches"
    version: Literal[1]
    grid: Annotated[int, Field(ge=1, le=32)]

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Returns the boxes as masks; see `Segmenter.segment`."""
        return [self._segment_one(*image.shape[:2]) for image in images]

    def _segment_one(self, height: int, width: int) -> Masks:
        rows = pairwise(height * step // self.grid for step in range(self.grid + 1))
        columns = pairwise(width * step // self.grid for step in range(self.grid + 1))
        regions = [
            Region(x0, y0, np.ones((y1 - y0, x1 - x0), bool), (1.0,))
            for (y0, y1), (x0, x1) in product(list(rows), list(columns))
        ]
        return Masks.of(height, width, regions, len(self.score_names))
