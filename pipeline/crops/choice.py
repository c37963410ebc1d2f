"""Which of an image's masks become crops."""

from collections.abc import Iterable

import numpy as np
from pycocotools import mask as rle

from pipeline.crops.settings import CropSettings
from pipeline.masks.masks import Masks

NEAR_DUPLICATE = 0.9
"""Masks of this intersection over union, or a larger one, show the same."""


def chosen_masks(masks: Masks, settings: CropSettings) -> list[int]:
    """Returns the numbers of the masks to crop, at most K, in the order of their crops.

    Args:
        masks: all masks of an image, largest first.
        settings: how masks are chosen, and the limits of their number and their boxes.
    """
    widths, heights = (masks.boxes[:, 2:] - masks.boxes[:, :2]).T
    allowed = widths * heights <= settings.max_box_area * masks.height * masks.width
    if settings.choose == "largest":
        return np.flatnonzero(allowed)[: settings.per_image].tolist()
    by_level = np.argsort(masks.levels, kind="stable")
    order = by_level[(allowed & masks.foreground)[by_level]]
    return _distinct(masks, order.tolist(), settings.per_image)


def _distinct(masks: Masks, order: Iterable[int], most: int) -> list[int]:
    """Returns the first masks of an order, without those that nearly repeat an earlier one."""
    chosen: list[int] = []
    shapes: list[dict] = []
    for mask in order:
        if len(chosen) == most:
            break
        shape = masks.coco(mask)
        if not shapes or rle.iou(shapes, [shape], [0]).max() < NEAR_DUPLICATE:
            chosen.append(mask)
            shapes.append(shape)
    return chosen
