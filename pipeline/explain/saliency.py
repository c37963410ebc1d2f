"""The `mask` explanation: what the segmenter found is where the prototype looked."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.crops.extraction import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.masks.store import MaskStore


class MaskSaliency:
    """Draws a prototype's saliency as the mask of the crop that is nearest to it.

    Args:
        rows_N: int64, which images of the stores the evidence is about.
        crop_NP: int64, each image's crop that is nearest to each prototype.
        masks: the mask store.
        crops: the crop store.
        size: S, the side of the maps.
    """

    def __init__(
        self,
        rows_N: NDArray[np.int64],
        crop_NP: Tensor,
        masks: MaskStore,
        crops: CropStore,
        size: int,
    ) -> None:
        self.rows_N, self.crop_NP = rows_N, crop_NP
        self.masks, self.crops, self.size = masks, crops, size
        self._resized = lru_cache(maxsize=1024)(self._resize)

    def maps(self, images_B: Tensor, prototypes_Bk: Tensor) -> tuple[Tensor, Tensor]:
        """Returns maps of 0 and 1 (float32) and the same as masks (bool), both B×k×S×S."""
        crop_Bk = self.crop_NP[images_B[:, None], prototypes_Bk]
        drawn = [
            [self._resized(image, crop) for crop in crops]
            for image, crops in zip(images_B.tolist(), crop_Bk.tolist(), strict=True)
        ]
        masks_BkSS = torch.from_numpy(np.array(drawn))
        return masks_BkSS.float(), masks_BkSS

    def _resize(self, image: int, crop: int) -> NDArray[np.bool_]:
        row = int(self.rows_N[image])
        mask = int(self.crops.masks[row, crop])
        if mask == NO_MASK:
            return np.ones((self.size, self.size), bool)
        return resize_mask(self.masks.masks(row).full(mask), self.size)


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resizes a mask to size×size: bilinear and antialiased, min–max normalised, cut at 0.5.

    A mask that is the same everywhere stays as it is.
    """
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    values = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) >= 0.5 if high > low else values >= 128
