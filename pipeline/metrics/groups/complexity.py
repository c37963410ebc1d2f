"""Complexity: whether prototypes are found on the object, and on the same part each time.

Formulas: docs/method.md, "Metrics", Complexity; Schlinge et al. 2025 (arXiv 2507.06819). The mask
metrics have one value for each of an image's k maps; an image's value is their mean.
"""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Drawn, Evidence
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register

OF_OBJECTS = ("object_overlap", "background_overlap", "iou", "comprehensiveness", "ior", "oirr")
STRONG = 0.6
"""Threshold of min–max normalised maps in `comprehensiveness` (Zhu et al., 2025)."""


@register
class Complexity(MetricGroup):
    """Whether prototypes are found on the object, and on the same part each time."""

    name = "complexity"
    question = "Is what it looks at on the object?"
    notes: ClassVar = {
        "object_overlap": Note(
            "Object overlap", PERCENT, "higher", "Share of the object that a prototype covers."
        ),
        "background_overlap": Note(
            "Background overlap", PERCENT, "lower", "Share of what it covers that is background."
        ),
        "iou": Note("IoU", PERCENT, "higher", "Overlap of the two, over their union."),
        "comprehensiveness": Note(
            "Comprehensiveness",
            PERCENT,
            "higher",
            "Overlap of all of an image's prototypes together with the object, over their union.",
        ),
        "ior": Note(
            "IOR", "−1 to 1", "higher", "Mean saliency on the object minus that outside it."
        ),
        "oirr": Note("OIRR", "ratio", "lower", "Mean saliency outside the object over that on it."),
        "consistency": Note(
            "Consistency", PERCENT, "higher", "How often a prototype meets the same part again."
        ),
    }
    needs_objects = True

    def unavailable(self, evidence: Evidence) -> dict[str, str]:
        """Returns the metrics that cannot be measured without object masks or part locations.

        Args:
            evidence: a model's outputs for the N images of a split.

        Returns:
            metric → reason.
        """
        return evidence.unmeasurable(OF_OBJECTS, ["consistency"])

    def of_maps(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns the mask metrics of a batch's images, and the parts that their maps hit.

        Args:
            batch: the B images, with the model's outputs for them.
            drawn: the saliency maps and masks of the images' k prototypes.

        Returns:
            The mask metrics, float B each, if there are object masks; and `hits`, bool B×k×Q, if
            there are part locations.
        """
        evidence, maps, masks = batch.evidence, drawn.maps_BkSS, drawn.masks_BkSS
        values = {}
        if evidence.object_masks is not None:
            objects = evidence.object_masks[batch.images_B]
            values = {
                "object_overlap": object_overlap(masks, objects).mean(dim=1),
                "background_overlap": background_overlap(masks, objects).mean(dim=1),
                "iou": iou(masks, objects).mean(dim=1),
                "comprehensiveness": comprehensiveness(maps, objects),
                "ior": ior(maps, objects).mean(dim=1),
                "oirr": oirr(maps, objects).mean(dim=1),
            }
        if evidence.parts_NQ2 is not None:
            values["hits"] = part_hits(maps, evidence.parts_NQ2[batch.images_B])
        return values

    def from_maps(self, evidence: Evidence, gathered: dict[str, Tensor]) -> Values:
        """Returns the mask metrics unchanged, and the consistency computed from the hits.

        Args:
            evidence: a model's outputs for the N images of a split.
            gathered: the results of `of_maps` for all N images, by name.
        """
        values: Values = {name: value for name, value in gathered.items() if name != "hits"}
        if "hits" in gathered:
            values["consistency"] = consistency(gathered["hits"], evidence.top_Nk)
        return values


def object_overlap(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns |mask ∩ object| / |object|, ×100: float32 B×k, 0..100; 0 for an empty object.

    Args:
        masks_BkSS: saliency masks of the images' prototypes, bool B×k×S×S.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    return 100 * ratio(area(masks_BkSS & objects_BSS[:, None]), area(objects_BSS)[:, None])


def background_overlap(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns 1 − |mask ∩ object| / |mask|, ×100: float32 B×k, 0..100; 0 for an empty mask.

    Args:
        masks_BkSS: saliency masks of the images' prototypes, bool B×k×S×S.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    return 100 * ratio(area(masks_BkSS & ~objects_BSS[:, None]), area(masks_BkSS))


def iou(masks_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns |mask ∩ object| / |mask ∪ object|, ×100: float32 B×k, 0..100; 0 if both are empty.

    Args:
        masks_BkSS: saliency masks of the images' prototypes, bool B×k×S×S.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    objects_B1SS = objects_BSS[:, None]
    return 100 * ratio(area(masks_BkSS & objects_B1SS), area(masks_BkSS | objects_B1SS))


def comprehensiveness(maps_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns |any ∩ object| / |any ∪ object|, ×100, of the union of an image's maps: float32 B.

    The comprehensiveness score of Zhu et al. (2025, arXiv 2503.10247), of an image's k prototypes:
    each map is min–max normalised and thresholded at 0.6. An all-zero map is empty, and another
    constant one full.

    Args:
        maps_BkSS: saliency maps of the images' prototypes, float32 B×k×S×S, ≥ 0.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    least_Bk11 = maps_BkSS.amin(dim=(2, 3), keepdim=True)
    largest_Bk11 = maps_BkSS.amax(dim=(2, 3), keepdim=True)
    strong_BkSS = maps_BkSS - least_Bk11 >= STRONG * (largest_Bk11 - least_Bk11)
    any_B1SS = (strong_BkSS & (largest_Bk11 > 0)).any(dim=1, keepdim=True)
    return iou(any_B1SS, objects_BSS)[:, 0]


def ior(maps_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns the inside-outside relevance, float32 B×k, −1..1.

    Each map is divided by its maximum (an all-zero map stays zero). The result is the mean of its
    non-zero values inside the object minus the mean of those outside. A mean of no values is 0.

    Args:
        maps_BkSS: saliency maps of the images' prototypes, float32 B×k×S×S, ≥ 0.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    largest = maps_BkSS.amax(dim=(-2, -1), keepdim=True)
    scaled_BkSS = maps_BkSS / torch.where(largest > 0, largest, 1.0)
    inside_B1SS = objects_BSS[:, None]
    return mean_nonzero(scaled_BkSS, inside_B1SS) - mean_nonzero(scaled_BkSS, ~inside_B1SS)


def oirr(maps_BkSS: Tensor, objects_BSS: Tensor) -> Tensor:
    """Returns the outside-inside relevance ratio, float32 B×k, 0..∞.

    It is the mean non-zero value outside the object / that inside: 0 if nothing is outside;
    infinite if nothing is inside, as for an all-zero map. An image with one infinite map has the
    value ∞, which `summary.summarise` excludes from the mean and counts.

    Args:
        maps_BkSS: saliency maps of the images' prototypes, float32 B×k×S×S, ≥ 0.
        objects_BSS: object masks of the images, bool B×S×S.
    """
    inside_B1SS = objects_BSS[:, None]
    inside_Bk = mean_nonzero(maps_BkSS, inside_B1SS)
    outside_Bk = mean_nonzero(maps_BkSS, ~inside_B1SS)
    return torch.where(inside_Bk > 0, outside_Bk / inside_Bk, torch.inf)


def part_hits(maps_BkSS: Tensor, parts_BQ2: Tensor) -> Tensor:
    """Returns whether each part lies on a non-zero value of each map, bool B×k×Q.

    A part at (x, y) lies on pixel (⌊x⌋, ⌊y⌋); one on the right or lower border, on the last pixel.
    A part outside the map or at NaN (not visible) lies on none.

    Args:
        maps_BkSS: saliency maps or masks, B×k×height×width, of any dtype.
        parts_BQ2: part locations (x, y), float B×Q×2, in the maps' pixels.
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
    """Returns how consistently a prototype is found on the same parts, ×100: 0..100.

    For each prototype that is among some image's k, and each part: the share of those images in
    which the part is hit; then the mean over the parts that the prototype ever hit (0 if it hit
    none); then the mean over those prototypes. A part that is not visible in an image is not hit
    there.

    Args:
        hits_NkQ: whether each part lies on the prototype's map, bool N×k×Q.
        top_Nk: int64 N×k, the prototypes that explain each image, 0..P−1.
    """
    used_P, place_Nk, count_P = top_Nk.unique(return_inverse=True, return_counts=True)
    hits_PQ = torch.zeros(len(used_P), hits_NkQ.shape[-1], dtype=torch.float64)
    hits_PQ.index_add_(0, place_Nk.flatten(), hits_NkQ.flatten(0, 1).double())
    share_PQ = hits_PQ / count_P[:, None]
    return 100 * float(ratio(share_PQ.sum(dim=1), (hits_PQ > 0).sum(dim=1)).mean())


def mean_nonzero(maps_BkSS: Tensor, region_B1SS: Tensor) -> Tensor:
    """Returns the mean of each map's non-zero values in a region, float32 B×k; 0 if there are none.

    Args:
        maps_BkSS: saliency maps, float32 B×k×S×S, ≥ 0.
        region_B1SS: the region of each image, bool B×1×S×S.
    """
    within_BkSS = maps_BkSS * region_B1SS
    return ratio(area(within_BkSS), area(within_BkSS != 0))


def area(masks_SS: Tensor) -> Tensor:
    """Returns the sum over the last two dimensions, float32; of a mask, its number of pixels.

    It is exact below 2²⁴. Summing in float32 takes a third of the time of torch's int64 sum of a
    bool tensor.

    Args:
        masks_SS: masks or maps, (…)×S×S, bool or float.
    """
    return masks_SS.sum(dim=(-2, -1), dtype=torch.float32)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns numerator / denominator, elementwise; 0 where the denominator is 0.

    Args:
        numerator: the dividends, a tensor of any shape.
        denominator: the divisors, a tensor that broadcasts with the numerator.
    """
    return torch.where(denominator != 0, numerator / denominator, 0.0)
