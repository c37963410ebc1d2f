"""Complexity: whether prototypes are found on the object, and on the same part each time.

Formulas: method.md, "Metrics", Complexity; Schlinge et al. 2025 (arXiv 2507.06819). The mask
metrics give one value for each of an image's k maps; an image's value is their mean.
"""

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Drawn, Evidence


def unavailable(evidence: Evidence) -> dict[str, str]:
    """What takes object masks or part locations where there are none."""
    missing = {}
    if evidence.object_masks is None:
        why = "not every test image has an object mask"
        missing = dict.fromkeys(("object_overlap", "background_overlap", "iou", "ior", "oirr"), why)
    if evidence.parts_NQ2 is None:
        missing["consistency"] = "the data set has no part locations"
    return missing


def of_maps(batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
    """The mask metrics of a batch's images (B), and which parts their maps hit (`hits`, B×k×Q)."""
    evidence, maps, masks = batch.evidence, drawn.maps_BkSS, drawn.masks_BkSS
    values = {}
    if evidence.object_masks is not None:
        objects = evidence.object_masks[batch.images_B]
        values = {
            "object_overlap": object_overlap(masks, objects).mean(dim=1),
            "background_overlap": background_overlap(masks, objects).mean(dim=1),
            "iou": iou(masks, objects).mean(dim=1),
            "ior": ior(maps, objects).mean(dim=1),
            "oirr": oirr(maps, objects).mean(dim=1),
        }
    if evidence.parts_NQ2 is not None:
        values["hits"] = part_hits(maps, evidence.parts_NQ2[batch.images_B])
    return values


def from_maps(evidence: Evidence, gathered: dict[str, Tensor]) -> Values:
    """The mask metrics as they are, and of the hits the consistency."""
    values: Values = {name: value for name, value in gathered.items() if name != "hits"}
    if "hits" in gathered:
        values["consistency"] = consistency(gathered["hits"], evidence.top_Nk)
    return values


def object_overlap(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """|mask ∩ object| / |object|, ×100: Bk; 0 to 100. 0 for an empty object."""
    return 100 * ratio(area(masks_BkSS & objects_BSS[:, None]), area(objects_BSS)[:, None])


def background_overlap(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """1 − |mask ∩ object| / |mask|, ×100: Bk; 0 to 100. 0 for an empty mask."""
    return 100 * ratio(area(masks_BkSS & ~objects_BSS[:, None]), area(masks_BkSS))


def iou(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """|mask ∩ object| / |mask ∪ object|, ×100: Bk; 0 to 100. 0 when both are empty."""
    objects_B1SS = objects_BSS[:, None]
    return 100 * ratio(area(masks_BkSS & objects_B1SS), area(masks_BkSS | objects_B1SS))


def ior(maps_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Inside-outside relevance: Bk; −1 to 1, larger when relevance lies on the object.

    Each map is divided by its maximum (an all-zero map stays zero); then the mean of its non-zero
    values inside the object minus the mean of its non-zero values outside. A mean of none is 0.
    """
    largest = maps_BkSS.amax(dim=(-2, -1), keepdim=True)
    scaled_BkSS = maps_BkSS / torch.where(largest > 0, largest, 1.0)
    inside_B1SS = objects_BSS[:, None]
    return mean_nonzero(scaled_BkSS, inside_B1SS) - mean_nonzero(scaled_BkSS, ~inside_B1SS)


def oirr(maps_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Outside-inside relevance ratio: mean non-zero value outside / inside: Bk; 0 to ∞.

    0 when nothing is outside; infinite when nothing is inside, as for an all-zero map. An image
    with one infinite map is infinite, and `summary.summarise` leaves it out and counts it.
    """
    inside_B1SS = objects_BSS[:, None]
    inside_Bk = mean_nonzero(maps_BkSS, inside_B1SS)
    outside_Bk = mean_nonzero(maps_BkSS, ~inside_B1SS)
    return torch.where(inside_Bk > 0, outside_Bk / inside_Bk, torch.inf)


def part_hits(maps_BkSS: Tensor, parts_BQ2: Tensor) -> Tensor:
    """Whether each part lies on a non-zero value of each map: bool, B×k×Q.

    A part at (x, y) lies on pixel (⌊x⌋, ⌊y⌋), one on the right or lower border on the last pixel.
    A part outside the map, or at NaN (not visible), lies on none.
    """
    height, width = maps_BkSS.shape[-2:]
    x_BQ, y_BQ = parts_BQ2.unbind(dim=-1)
    visible_BQ = (x_BQ >= 0) & (x_BQ <= width) & (y_BQ >= 0) & (y_BQ <= height)
    column_BQ = x_BQ.nan_to_num().clamp(0, width - 1).long()
    row_BQ = y_BQ.nan_to_num().clamp(0, height - 1).long()
    images_B1 = torch.arange(len(maps_BkSS))[:, None]
    values_BQk = maps_BkSS[images_B1, :, row_BQ, column_BQ]
    return (values_BQk != 0).transpose(1, 2) & visible_BQ[:, None]


def consistency(hits_NkQ: Tensor, top_Nk: Tensor) -> float:
    """How reliably a prototype is found on the same parts, ×100: 0 to 100.

    For each prototype in some image's k and each part: the share of those images in which the
    part is hit; then the mean over the parts that the prototype ever hit (0 if it hit none);
    then the mean over those prototypes. A part that is not visible in an image is not hit there.
    """
    used_P, place_Nk, count_P = top_Nk.unique(return_inverse=True, return_counts=True)
    hits_PQ = torch.zeros(len(used_P), hits_NkQ.shape[-1], dtype=torch.float64)
    hits_PQ.index_add_(0, place_Nk.flatten(), hits_NkQ.flatten(0, 1).double())
    share_PQ = hits_PQ / count_P[:, None]
    return 100 * float(ratio(share_PQ.sum(dim=1), (hits_PQ > 0).sum(dim=1)).mean())


def mean_nonzero(maps_BkSS: Tensor, region_B1SS: Tensor) -> Tensor:
    """The mean of each map's non-zero values within a region: Bk; 0 where there are none."""
    within_BkSS = maps_BkSS * region_B1SS
    return ratio(area(within_BkSS), area(within_BkSS != 0))


def area(masks_SS: Tensor) -> Tensor:
    """The sum over the last two dimensions: of a mask, its number of pixels, exact below 2²⁴.

    Summing in float32 takes a third of the time of torch's int64 sum of a bool.
    """
    return masks_SS.sum(dim=(-2, -1), dtype=torch.float32)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Numerator / denominator, 0 where the denominator is 0."""
    return torch.where(denominator != 0, numerator / denominator, 0.0)
