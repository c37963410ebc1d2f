"""Which of the masks that the decoder proposes are kept: scores, stability, edges, duplicates.

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
from pipeline.masks.sam2.components import small_components
from pipeline.masks.sam2.segmenter import Sam2

# Times as many pixels as the decoder's: a crop's, from which on bounds cost less than upsampling.
MUCH_LARGER = 4
FILLED = 10.0


@dataclass(frozen=True)
class Crop:
    """A part of a photograph that is segmented for itself.

    Args:
        box: x0, y0, x1, y1 in the photograph, half-open.
        width, height: the photograph's, in pixels.
    """

    box: tuple[int, int, int, int]
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0


@dataclass(frozen=True)
class Proposals:
    """Masks of one photograph.

    Args:
        logits: float32, m×h×w, of each mask in its crop.
        iou: float32, m, as predicted.
        stability: float32, m.
        boxes: int64, m×4, x0, y0, x1, y1 of the first and last pixels, in the photograph.
        crops: int64, m×4, the boxes of their crops.
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
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(values) for values in columns))


def may_be_stable(logits: Tensor, crop: Crop, settings: Sam2) -> Tensor:
    """Says at the decoder's resolution which masks can be stable at the crop's: bool, m.

    An upsampled logit lies between the lowest and the highest of the four around it. Where that
    highest is not above a threshold, none of the crop's pixels there is; where that lowest is, all
    are: bounds of both areas whose quotient is the stability.
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
        int64, (h + 1)×(w + 1): before the first row and after the last lie pixels as well.
    """
    counts = []
    for few, many in zip(small, large, strict=True):
        before = torch.floor((torch.arange(many) + 0.5) * few / many - 0.5).long() + 1
        counts.append(torch.bincount(before, minlength=few + 1))
    return counts[0][:, None] * counts[1]


def fill(logits: Tensor, area: int) -> Tensor:
    """Fills holes and removes specks of at most `area` pixels, as SAM2ImagePredictor does."""
    if area <= 0:
        return logits
    holes = small_components(logits <= 0, area)
    specks = small_components(logits > 0, area)
    return torch.where(holes, FILLED, torch.where(specks, -FILLED, logits))


def propose(logits: Tensor, iou: Tensor, crop: Crop, settings: Sam2, pixels: int) -> Proposals:
    """Keeps the masks that are stable and do not touch an edge that is the crop's alone.

    Args:
        logits: float32, m×h×w.
        iou: float32, m.
        crop: theirs.
        settings: the thresholds.
        pixels: how many may be upsampled at a time.
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


def distinct_in_crop(proposals: Proposals, settings: Sam2) -> Proposals:
    """Drops near-duplicates among one crop's masks, the better predicted IoU first."""
    boxes = proposals.boxes.float()
    return proposals[nms(boxes, proposals.iou, settings.box_nms_thresh)]


def distinct(proposals: Proposals, settings: Sam2) -> Proposals:
    """Drops near-duplicates among different crops' masks; those of a smaller crop go first."""
    scores = 1 / box_area(proposals.crops.float())
    return proposals[nms(proposals.boxes.float(), scores, settings.crop_nms_thresh)]


def regions(proposals: Proposals, settings: Sam2) -> list[Region]:
    """Returns the masks at the photograph's resolution."""
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
    """Returns logits, m×h×w, at another size (height, width), bilinearly."""
    return interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _stability(logits: Tensor, settings: Sam2) -> Tensor:
    """Returns the IoU of the masks cut above and below the threshold: NaN where both are empty."""
    return calculate_stability_score(
        logits, settings.mask_threshold, settings.stability_score_offset
    )
