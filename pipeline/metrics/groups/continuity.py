"""Continuity: change of outputs and explanations when an image is slightly perturbed.

Formulas: docs/method.md, "Metrics", Continuity; Schlinge et al. 2025 (arXiv 2507.06819). An image
is compared with its perturbed copy (`perturbation.perturb`), for the same k prototypes in both; 0
is no change. "First" is the image, "second" the copy. A prototype's similarity map is its
similarities to the image's V views: for ProtoMask, its K crops. Most metrics have one value for
each of the k prototypes; an image's value is their mean.

Dimensions: those of `evidence`.
"""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.metrics.evidence import Batch, Drawn, Evidence, ranking
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register
from pipeline.metrics.groups.complexity import part_hits
from pipeline.metrics.groups.contrastivity import mask_distance, one_minus_iou, value_distance
from pipeline.model.base.inference import ModelOutputs
from pipeline.saliency.maps import similarity_maps

OF_MAPS = ("plc", "palc", "pac")


@register
class Continuity(MetricGroup):
    """Change of outputs and explanations when an image is slightly perturbed."""

    name = "continuity"
    question = "Does a slightly changed photograph get the same explanation?"
    notes: ClassVar = {
        "vlc": Note("Location change", PERCENT, "lower", "How far a prototype's saliency moves."),
        "vac": Note("Activation change", PERCENT, "lower", "How differently its map is filled."),
        "plc": Note(
            "Crop change", "crops", "lower", "How far the number of its nearest crop moves."
        ),
        "psc": Note("Similarity change", PERCENT, "lower", "How much its similarity changes."),
        "prc": Note(
            "Rank change", "ranks", "lower", "How many places it rises or falls among all."
        ),
        "palc": Note(
            "Similarity map location", PERCENT, "lower", "How far the crops most like it move."
        ),
        "pac": Note(
            "Similarity map values", PERCENT, "lower", "How much its similarities to crops change."
        ),
        "cac": Note("Class scores", PERCENT, "lower", "How much the class scores change."),
        "crc": Note(
            "Class rank", "rank", "lower", "New rank of the class that came first; 0 is first."
        ),
        "stability": Note(
            "Stability", PERCENT, "higher", "Share of the parts hit that are hit again."
        ),
    }
    cell_notes: ClassVar = {
        "plc": Note(
            "Cell change", "cells", "lower", "How far its most similar cell moves, down and across."
        ),
        "palc": Note(
            "Similarity map location", PERCENT, "lower", "How far the cells most like it move."
        ),
        "pac": Note(
            "Similarity map values", PERCENT, "lower", "How much its similarities to cells change."
        ),
    }

    def unavailable(self, evidence: Evidence) -> dict[str, str]:
        """Returns the metrics that cannot be measured, with the reason.

        Stability requires part locations; PLC, PALC and PAC require similarity maps.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        missing = without_maps(evidence)
        return missing | evidence.unmeasurable(of_parts=["stability"])

    def of_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the metrics without saliency maps: PLC, PALC, PAC, PSC, PRC, CAC and CRC.

        Args:
            batch: the B images, with the model's outputs for them and for their copies.

        Returns:
            metric → float64 or float32 B, one value per image.
        """
        first, second = batch.outputs, batch.perturbed.outputs
        changes = of_outputs(batch.evidence, first, second, batch.valid_BK, batch.prototypes_Bk)
        return {name: change_Bk.nanmean(dim=1) for name, change_Bk in changes.items()} | {
            "cac": cac(first.logits_NC, second.logits_NC),
            "crc": crc(first.logits_NC, second.logits_NC),
        }

    def of_maps(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns VLC, VAC and, with part locations, stability of a batch's images, float B each.

        Args:
            batch: the B images, with the model's outputs for them and for their copies.
            drawn: the saliency maps and masks of the images' k prototypes.
        """
        evidence, copies = batch.evidence, batch.perturbed
        crop_Bk = evidence.crop_of(copies.outputs.view_NP.gather(1, batch.prototypes_Bk))
        maps_BkSS, masks_BkSS = drawn.explanation.maps(
            batch.images_B, batch.prototypes_Bk, crop_Bk, copies
        )
        changes = {"vlc": vlc(drawn.masks_BkSS, masks_BkSS), "vac": vac(drawn.maps_BkSS, maps_BkSS)}
        if evidence.parts_NQ2 is not None:
            parts_BQ2 = evidence.parts_NQ2[batch.images_B]
            changes["stability"] = stability(drawn.masks_BkSS, masks_BkSS, parts_BQ2)
        return {name: change_Bk.nanmean(dim=1) for name, change_Bk in changes.items()}


def without_maps(evidence: Evidence) -> dict[str, str]:
    """Returns PLC, PALC and PAC with the reason, if the model has no similarity maps (black box).

    Args:
        evidence: a model's outputs for the N images of a split.
    """
    why = "a black box sees the whole image as one, and has no similarity maps"
    return {} if evidence.head.has_prototypes else dict.fromkeys(OF_MAPS, why)


def of_outputs(
    evidence: Evidence,
    first: ModelOutputs,
    second: ModelOutputs,
    valid_BK: Tensor,
    prototypes_Bk: Tensor,
) -> dict[str, Tensor]:
    """Returns PLC, PALC, PAC, PSC and PRC of images and their copies, float B×k each.

    For a black box, only PSC and PRC, of the logits.

    Args:
        evidence: a model's outputs for the split that the images belong to.
        first: the model's outputs for B images.
        second: the model's outputs for one copy of each of them.
        valid_BK: bool B×K, false for missing crops.
        prototypes_Bk: int64 B×k, the prototypes to compare, 0..P−1.
    """
    s_Bk, s2_Bk = (a.similarity_NP.gather(1, prototypes_Bk) for a in (first, second))
    changes = {
        "psc": psc(s_Bk, s2_Bk),
        "prc": prc(first.similarity_NP, second.similarity_NP, prototypes_Bk),
    }
    if without_maps(evidence):
        return changes
    valid_BV = evidence.valid_views(valid_BK)
    view_Bk, view2_Bk = (a.view_NP.gather(1, prototypes_Bk) for a in (first, second))
    map_BkV, map2_BkV = (
        similarity_maps(a.embedding_NVD, prototypes_Bk, evidence.head) for a in (first, second)
    )
    return {
        "plc": plc(view_Bk, view2_Bk, evidence.grid),
        "palc": palc(map_BkV, map2_BkV, valid_BV),
        "pac": pac(map_BkV, map2_BkV, valid_BV),
        **changes,
    }


def vlc(first_BkSS: Tensor, second_BkSS: Tensor) -> Tensor:
    """Returns the visual location change: 1 − IoU of two saliency masks, ×100: B×k, 0..100.

    Two empty masks have distance 0.

    Args:
        first_BkSS: saliency masks of the images, bool B×k×S×S.
        second_BkSS: saliency masks of their copies, bool B×k×S×S.
    """
    return 100 * mask_distance(first_BkSS, second_BkSS)


def vac(first_BkSS: Tensor, second_BkSS: Tensor) -> Tensor:
    """Returns the visual activation change of two saliency maps, ×100: B×k, 0..100.

    It is 1 − Σmin/Σmax of the maps' sorted values; 0 for two all-zero maps.

    Args:
        first_BkSS: saliency maps of the images, float32 B×k×S×S, ≥ 0.
        second_BkSS: saliency maps of their copies, float32 B×k×S×S, ≥ 0.
    """
    return 100 * value_distance(first_BkSS.flatten(-2), second_BkSS.flatten(-2)).clamp(max=1)


def plc(first_Bk: Tensor, second_Bk: Tensor, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """Returns the prototype location change, float64 B×k, ≥ 0.

    It is the Manhattan distance between the positions of the similarity maps' maxima. If a view is
    a crop, the positions are crop numbers: |crop − crop'|. If a view is a cell, the distances in
    rows and columns are added.

    Args:
        first_Bk: int64 B×k, the most similar view of each prototype in the image, 0..V−1.
        second_Bk: int64 B×k, the most similar view of each prototype in the copy, 0..V−1.
        grid: numbers of rows and columns of views of a crop.
    """
    rows, columns = grid
    sides = torch.tensor([rows * columns, columns, 1])
    limits = torch.tensor([torch.iinfo(torch.int64).max, rows, columns])
    first_Bk3, second_Bk3 = ((v[..., None] // sides) % limits for v in (first_Bk, second_Bk))
    return (first_Bk3 - second_Bk3).abs().sum(-1).double()


def palc(first_BkV: Tensor, second_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the prototype activation location change of similarity maps, ×100: B×k, 0..100.

    Each map is min–max normalised over the valid views and thresholded at 0.5; the two sets of
    views are compared by 1 − IoU. A constant map, such as that of a single valid crop, cannot be
    normalised: all its views are at the maximum, and all belong to the set.

    Args:
        first_BkV: similarity maps of the images, float B×k×V.
        second_BkV: similarity maps of their copies, float B×k×V.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    first, second = (_upper_half(map_BkV, valid_BV) for map_BkV in (first_BkV, second_BkV))
    shared_Bk = (first & second).sum(dim=-1)
    return 100 * one_minus_iou(shared_Bk, first.sum(dim=-1), second.sum(dim=-1))


def pac(first_BkV: Tensor, second_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the prototype activation change of similarity maps, ×100: B×k, 0..100.

    It is 1 − Σmin/Σmax of the maps' sorted values over the valid views; since no s is negative,
    zeros for missing views do not change either sum. Two all-zero maps have distance 0.

    Args:
        first_BkV: similarity maps of the images, float B×k×V, ≥ 0.
        second_BkV: similarity maps of their copies, float B×k×V, ≥ 0.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    missing_B1V = ~valid_BV[:, None]
    first, second = (s_BkV.masked_fill(missing_B1V, 0) for s_BkV in (first_BkV, second_BkV))
    return 100 * value_distance(first, second).clamp(max=1)


def psc(first_Bk: Tensor, second_Bk: Tensor) -> Tensor:
    """Returns the prototype similarity change |s − s'| / |s|, ×100: float64 B×k, 0..∞.

    It is 0 where the two are equal, also if both are 0, and infinite where only s is 0. The value
    of such an image is infinite too: `summary.summarise` excludes it from the mean and counts it.

    Args:
        first_Bk: s, similarity of each prototype to the image, float B×k; of a black box, the
            logit.
        second_Bk: s', similarity of each prototype to the copy, float B×k; of a black box, the
            logit.
    """
    change_Bk = (first_Bk.double() - second_Bk.double()).abs()
    return torch.where(change_Bk == 0, 0.0, 100 * change_Bk / first_Bk.abs())


def prc(first_BP: Tensor, second_BP: Tensor, prototypes_Bk: Tensor) -> Tensor:
    """Returns the prototype rank change |rank − rank'|, float64 B×k, 0..P−1.

    The rank is that among all P prototypes by descending similarity; equal similarities rank by
    prototype number.

    Args:
        first_BP: similarity of all prototypes to the images, float B×P.
        second_BP: similarity of all prototypes to their copies, float B×P.
        prototypes_Bk: int64 B×k, the prototypes to compare, 0..P−1.
    """
    first_Bk, second_Bk = (_ranks(s).gather(1, prototypes_Bk) for s in (first_BP, second_BP))
    return (first_Bk - second_Bk).abs().double()


def cac(first_BC: Tensor, second_BC: Tensor) -> Tensor:
    """Returns the classification activation change, ×100: float64 B.

    It is 1 − Σmin/Σmax of the sorted logits: 0 for equal logits; 0..100 if none is negative. Logits
    may be negative: with Σmin below 0 it exceeds 100, without an upper bound. It is NaN where Σmax
    ≤ 0, since the quotient then does not measure a change.

    Args:
        first_BC: logits of the images, float B×C.
        second_BC: logits of their copies, float B×C.
    """
    first_BC, second_BC = first_BC.double(), second_BC.double()
    change_B = value_distance(first_BC, second_BC)
    largest_B = torch.maximum(first_BC.sort().values, second_BC.sort().values).sum(dim=-1)
    return 100 * torch.where((largest_B > 0) | (change_B == 0), change_B, torch.nan)


def crc(first_BC: Tensor, second_BC: Tensor) -> Tensor:
    """Returns the classification rank change, float64 B, 0..C−1.

    It is the rank in the copy of the class that is predicted for the image; 0 is still first. Equal
    logits rank by class number.

    Args:
        first_BC: logits of the images, float B×C.
        second_BC: logits of their copies, float B×C.
    """
    predicted_B1 = ranking(first_BC)[:, :1]
    return _ranks(second_BC).gather(1, predicted_B1)[:, 0].double()


def stability(first_BkSS: Tensor, second_BkSS: Tensor, parts_BQ2: Tensor) -> Tensor:
    """Returns, of the parts on either saliency mask, the share on both, ×100: B×k, 0..100.

    100 is best. NaN where no part lies on either mask: such a pair of image and prototype is
    excluded, and an image without any other pair has no value.

    Args:
        first_BkSS: saliency masks of the images, bool B×k×S×S.
        second_BkSS: saliency masks of their copies, bool B×k×S×S.
        parts_BQ2: part locations (x, y), float B×Q×2, in the masks' pixels; NaN if not visible.
    """
    first_BkQ, second_BkQ = (part_hits(masks, parts_BQ2) for masks in (first_BkSS, second_BkSS))
    return 100 * (first_BkQ & second_BkQ).sum(dim=-1) / (first_BkQ | second_BkQ).sum(dim=-1)


def _upper_half(map_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the valid views whose value is at least midway between minimum and maximum, bool."""
    valid_B1V = valid_BV[:, None]
    low = map_BkV.masked_fill(~valid_B1V, torch.inf).amin(dim=-1, keepdim=True)
    high = map_BkV.masked_fill(~valid_B1V, -torch.inf).amax(dim=-1, keepdim=True)
    return (map_BkV - low >= 0.5 * (high - low)) & valid_B1V


def _ranks(scores_BP: Tensor) -> Tensor:
    """Returns the rank of each score, 0 for the largest: the inverse of `ranking`'s permutation."""
    return ranking(scores_BP).argsort(dim=1)
