"""What is said of a crop that is hardly a part: of most of the image, or mostly of background."""

import numpy as np
from numpy.typing import NDArray

from pipeline.crops.settings import NO_MASK
from pipeline.masks.masks import Masks

MOST = 0.5
"""The share above which it is said."""


def crop_remarks(
    masks: Masks, mask_K: NDArray[np.integer], object_mask: NDArray[np.bool_] | None = None
) -> dict[int, str]:
    """Returns what is to be said of an image's crops; nothing of one that shows a part of it.

    Args:
        masks: the image's masks.
        mask_K: int K, the mask of each crop; `NO_MASK` for a crop without.
        object_mask: bool height×width, the pixels of the object; None if it is not known.

    Returns:
        `its crop is 82 % of the image` or `94 % of it is background`, or both, by crop.
    """
    return {
        crop: "; ".join(said)
        for crop, mask in enumerate(mask_K.tolist())
        if mask != NO_MASK
        for said in [_remarks(masks, mask, object_mask)]
        if said
    }


def _remarks(masks: Masks, mask: int, object_mask: NDArray[np.bool_] | None) -> list[str]:
    x0, y0, x1, y1 = masks.boxes[mask].tolist()
    share = (x1 - x0) * (y1 - y0) / (masks.height * masks.width)
    said = [f"its crop is {share:.0%} of the image"] if share > MOST else []
    if object_mask is not None:
        inside = masks.inside(mask)
        behind = (inside & ~object_mask[y0:y1, x0:x1]).sum() / inside.sum()
        said += [f"{behind:.0%} of it is background"] if behind > MOST else []
    return [text.replace("%", " %") for text in said]
