"""sam2's own generator, the reference for the batched engine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import sam2.utils.misc
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.amg import MaskData

from pipeline.masks.masks import Region
from pipeline.masks.segmenters.sam2.components import connected_components
from pipeline.masks.segmenters.sam2.settings import Sam2Settings

POINTS_PER_BATCH = 512


class ReferenceGenerator:
    """Runs `SAM2AutomaticMaskGenerator` on one image after another.

    Args:
        model: the network, with its weights, on its device.
        settings: the parameters of mask generation.
    """

    def __init__(self, model: SAM2Base, settings: Sam2Settings) -> None:
        if not hasattr(sam2, "_C"):
            # Without its CUDA extension, sam2 warns and keeps holes and specks.
            sam2.utils.misc.get_connected_components = connected_components
        self.precision = settings.precision
        self.device = model.device.type
        self.generator = _Generator(
            model,
            points_per_side=settings.points_per_side,
            points_per_batch=POINTS_PER_BATCH,
            pred_iou_thresh=settings.pred_iou_thresh,
            stability_score_thresh=settings.stability_score_thresh,
            stability_score_offset=settings.stability_score_offset,
            mask_threshold=settings.mask_threshold,
            box_nms_thresh=settings.box_nms_thresh,
            crop_n_layers=settings.crop_n_layers,
            crop_nms_thresh=settings.crop_nms_thresh,
            crop_overlap_ratio=settings.crop_overlap_ratio,
            crop_n_points_downscale_factor=settings.crop_n_points_downscale_factor,
            min_mask_region_area=settings.min_mask_region_area,
            output_mode="coco_rle",
        )
        # sam2 supports only the feature maps of its 1024×1024 input.
        finest = model.image_size // 4
        self.generator.predictor._bb_feat_sizes = [
            (side, side) for side in (finest, finest // 2, finest // 4)
        ]

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Region]]:
        """Returns the regions of each image; see `Generator`."""
        with torch.inference_mode(), self._precision():
            return [self._segment(image) for image in images]

    def _segment(self, image: NDArray[np.uint8]) -> list[Region]:
        try:
            return [_region(mask) for mask in self.generator.generate(image)]
        except IndexError:  # raised by sam2 if no crop has any mask
            return []

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


class _Generator(SAM2AutomaticMaskGenerator):
    """Passes over the empty crops of an image a few pixels wide, at which sam2 fails."""

    def _process_crop(
        self,
        image: NDArray[np.uint8],
        crop_box: list[int],
        crop_layer_idx: int,
        orig_size: tuple[int, ...],
    ) -> MaskData:
        x0, y0, x1, y1 = crop_box
        if x0 >= x1 or y0 >= y1:
            return MaskData()
        return super()._process_crop(image, crop_box, crop_layer_idx, orig_size)


def _region(mask: dict) -> Region:
    x0, y0, width, height = (int(number) for number in rle.toBbox(mask["segmentation"]))
    bitmap = rle.decode(mask["segmentation"]).astype(bool)
    inside = bitmap[y0 : y0 + height, x0 : x0 + width]
    return Region(x0, y0, inside, (mask["predicted_iou"], mask["stability_score"]))
