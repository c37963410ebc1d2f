"""The pictures of a data set's images: photographs with masks outlined, and crops."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.extraction import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.datasets.photograph import UnreadableImageError, read_photograph
from pipeline.explain.pictures import Outline, colour_of, outlined, resized
from pipeline.masks.store import MaskStore


class Gallery:
    """Draws an index's images.

    A photograph that is not on this machine, or is another one there, has no picture; its crops,
    which lie in the store, always have.

    Args:
        index: the images.
        root: the folder their paths are relative to.
        masks: their masks.
        crops: their crops.
    """

    def __init__(self, index: Index, root: Path, masks: MaskStore, crops: CropStore) -> None:
        masks.refuse_other_images(index.photographs)
        crops.refuse_unless(crops.settings, index.photographs)
        self.ids, self.masks, self.crops = index.ids, masks, crops
        self._paths = [root / path for path in index.table["path"]]
        self.photograph = lru_cache(maxsize=4)(self._read)
        self.missing: set[int] = set()

    def crop(self, row: int, crop: int, side: int) -> Image.Image:
        """Returns a crop as the network sees it, no larger than `side` pixels."""
        pixels = self.crops.crops([row])[0, crop]
        return resized(pixels, min(side, self.crops.settings.size))

    def outlined(
        self, row: int, crops: Mapping[int, str], side: int, dim: float = 0.0
    ) -> Image.Image | None:
        """Draws the masks of some of an image's crops over its photograph.

        Args:
            row: the image.
            crops: crop → the label of its mask; the colour is that of the crop's number.
            side: the picture's longer side, in pixels.
            dim: see `pictures.outlined`.
        """
        pixels = self.photograph(row)
        if pixels is None:
            return None
        outlines = [
            Outline(mask, colour_of(crop), label)
            for crop, label in crops.items()
            if (mask := self._mask(row, crop)) is not None
        ]
        return outlined(pixels, outlines, side, dim)

    def _mask(self, row: int, crop: int) -> NDArray[np.bool_] | None:
        mask = int(self.crops.masks[row, crop])
        return None if mask == NO_MASK else self.masks.masks(row).full(mask)

    def _read(self, row: int) -> NDArray[np.uint8] | None:
        about = self.masks.about["images"]
        try:
            pixels = read_photograph(self._paths[row])
        except UnreadableImageError:
            pixels = np.zeros((0, 0, 3), np.uint8)
        if pixels.shape[:2] == (about["height"][row], about["width"][row]):
            return pixels
        self.missing.add(row)
        return None
