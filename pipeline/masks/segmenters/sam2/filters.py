"""Filters of the decoder's mask proposals: score, stability, crop edges, duplicates.

Shapes: m masks, h×w the decoder's resolution (256×256).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.utils.amg import (
    batched_mask_to_box,
    calculate_stability_score,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
)
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad
from torchvision.ops import box_area, nms

from pipeline.masks.masks import Region
from pipeline.masks.segmenters.sam2.components import small_components
from pipeline.masks.segmenters.sam2.settings import Sam2Settings

# A crop with this many times the decoder's pixels: there, bounds cost less than upsampling.
MUCH_LARGER = 4
FILLED = 10.0


@dataclass(frozen=True)
class Crop:
    """A part of an image that is segmented separately.

    Args:
        box: the crop's box, half-open (x0, y0, x1, y1) in pixels of the image.
        width, height: size of the image in pixels.
    """

    box: tuple[int, int, int, int]
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crop in pixels."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0


@dataclass(frozen=True)
class Proposals:
    """The m proposed masks of one image.

    Args:
        logits: float32 m×h×w, mask logits in their crops.
        iou: float32 m, predicted IoU of each mask.
        stability: float32 m, stability score of each mask, in [0, 1].
        boxes: int64 m×4, (x0, y0, x1, y1) of each mask's first and last pixels in the image.
        crops: int64 m×4, the box of each mask's crop, half-open.
    """

    logits: Tensor
    iou: Tensor
    stability: Tensor
    boxes: Tensor
    crops: Tensor

    def __getitem__(self, chosen: Tensor) -> "Proposals":
        return Proposals(*(values[chosen] for values in vars(self).values()))

    def __len__(self) -> int:
        return len(self.iou)

    @classmethod
    def together(cls, parts: list["Proposals"]) -> "Proposals":
        """Returns the concatenation of proposals of one image."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(values) for values in columns))


def may_be_stable(logits: Tensor, crop: Crop, settings: Sam2Settings) -> Tensor:
    """Returns which masks can be stable at the crop's resolution, by a bound: bool m.

    An upsampled logit lies between the lowest and the highest of the four around it. Where the
    highest is not above a threshold, none of the crop's pixels is; where the lowest is, all are.
    This bounds both areas whose quotient is the stability.

    Args:
        logits: mask logits at the decoder's resolution, float32 m×h×w.
        crop: the crop that the masks were found in.
        settings: the parameters of mask generation.
    """
    if crop.size[0] * crop.size[1] < MUCH_LARGER * logits.shape[1] * logits.shape[2]:
        return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    offset = settings.stability_score_offset
    around = pad(logits[:, None], (1, 1, 1, 1), mode="replicate")
    highest, lowest = max_pool2d(around, 2, stride=1), -max_pool2d(-around, 2, stride=1)
    pixels = _pixels_between(logits.shape[1:], crop.size).to(logits.device)
    most = ((highest > settings.mask_threshold + offset) * pixels).sum((1, 2, 3))
    least = ((lowest > settings.mask_threshold - offset) * pixels).sum((1, 2, 3))
    return most >= settings.stability_score_thresh * least


def _pixels_between(small: Sequence[int], large: Sequence[int]) -> Tensor:
    """Counts the pixels of the large image between each four neighbours of the small one.

    Returns:
        int64 (h + 1)×(w + 1), as there are pixels before the first row and after the last as well.
    """
    counts = []
    for few, many in zip(small, large, strict=True):
        before = torch.floor((torch.arange(many) + 0.5) * few / many - 0.5).long() + 1
        counts.append(torch.bincount(before, minlength=few + 1))
    return counts[0][:, None] * counts[1]


def fill(logits: Tensor, area: int) -> Tensor:
    """Fills holes and removes specks of at most `area` pixels, as SAM2ImagePredictor does.

    Args:
        logits: mask logits, float32 m×h×w.
        area: largest area of a hole or speck, in pixels.
    """
    if area <= 0:
        return logits
    holes = small_components(logits <= 0, area)
    specks = small_components(logits > 0, area)
    return torch.where(holes, FILLED, torch.where(specks, -FILLED, logits))


def propose(
    logits: Tensor, iou: Tensor, crop: Crop, settings: Sam2Settings, pixels: int
) -> Proposals:
    """Keeps the masks that are stable and do not touch an edge of the crop inside the image.

    Args:
        logits: mask logits, float32 m×h×w.
        iou: predicted IoU of each mask, float32 m.
        crop: the crop that the masks were found in.
        settings: the thresholds and other parameters of mask generation.
        pixels: number of pixels that may be upsampled at a time.
    """
    height, width = crop.size
    parts = []
    for rows in torch.arange(len(iou), device=iou.device).split(max(1, pixels // (height * width))):
        full = upsample(logits[rows], crop.size)
        stability = _stability(full, settings)
        if settings.stability_score_thresh > 0:
            stable = stability >= settings.stability_score_thresh
            full, stability, rows = full[stable], stability[stable], rows[stable]
        boxes = batched_mask_to_box(full > settings.mask_threshold).long()
        whole = [0, 0, crop.width, crop.height]
        inside = ~is_box_near_crop_edge(boxes, list(crop.box), whole)
        rows, boxes = rows[inside], uncrop_boxes_xyxy(boxes[inside], list(crop.box))
        crops = torch.tensor(crop.box, device=boxes.device).expand(len(rows), -1)
        parts.append(Proposals(logits[rows], iou[rows], stability[inside], boxes, crops))
    return Proposals.together(parts)


def distinct_in_crop(proposals: Proposals, settings: Sam2Settings) -> Proposals:
    """Removes near-duplicates among one crop's masks by NMS, the larger predicted IoU first."""
    boxes = proposals.boxes.float()
    return proposals[nms(boxes, proposals.iou, settings.box_nms_thresh)]


def distinct(proposals: Proposals, settings: Sam2Settings) -> Proposals:
    """Removes near-duplicates among different crops' masks by NMS, those of smaller crops first."""
    scores = 1 / box_area(proposals.crops.float())
    return proposals[nms(proposals.boxes.float(), scores, settings.crop_nms_thresh)]


def regions(proposals: Proposals, settings: Sam2Settings) -> list[Region]:
    """Returns the masks at the image's resolution."""
    found = []
    scores = torch.stack([proposals.iou, proposals.stability], dim=1).tolist()
    places = zip(proposals.boxes.tolist(), proposals.crops.tolist(), strict=True)
    for number, (box, crop) in enumerate(places):
        size = crop[3] - crop[1], crop[2] - crop[0]
        bitmap = upsample(proposals.logits[number : number + 1], size)[0] > settings.mask_threshold
        x0, y0, x1, y1 = (at - corner for at, corner in zip(box, crop[:2] * 2, strict=True))
        inside = bitmap[y0 : y1 + 1, x0 : x1 + 1].cpu().numpy()
        found.append(Region(box[0], box[1], inside, tuple(scores[number])))
    return found


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes logits, m×h×w, bilinearly to another size (height, width)."""
    return interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _stability(logits: Tensor, settings: Sam2Settings) -> Tensor:
    """Returns the IoU of the masks thresholded at both offsets: m, NaN where both are empty."""
    return calculate_stability_score(
        logits, settings.mask_threshold, settings.stability_score_offset
    )
