"""Continuity: how far answers and explanations move when an image hardly changes.

Formulas: method.md, "Metrics", Continuity; Schlinge et al. 2025 (arXiv 2507.06819). An image is
compared with its perturbed copy (`perturbation.perturb`), for the same k prototypes in both; 0 is
no change. "First" is the image, "second" the copy. A prototype's similarity map is its similarities
to the image's V views: for ProtoMask, its K crops. Most metrics give a value for each of the k
prototypes; an image's value is their mean.
"""

import torch
from torch import Tensor

from pipeline.metrics.complexity import part_hits
from pipeline.metrics.contrastivity import mask_distance, one_minus_iou, value_distance
from pipeline.metrics.evidence import Batch, Drawn, Evidence, ranking
from pipeline.model.base.inference import Answers
from pipeline.saliency.maps import similarity_maps

OF_MAPS = ("plc", "palc", "pac")


def unavailable(evidence: Evidence) -> dict[str, str]:
    """Stability, where there are no part locations; of a black box, what takes similarity maps."""
    missing = without_maps(evidence)
    if evidence.parts_NQ2 is None:
        missing["stability"] = "the data set has no part locations"
    return missing


def without_maps(evidence: Evidence) -> dict[str, str]:
    """PLC, PALC and PAC, where the model compares nothing with several views of an image."""
    why = "a black box sees the whole image as one, and has no similarity maps"
    return {} if evidence.head.has_prototypes else dict.fromkeys(OF_MAPS, why)


def of_batch(batch: Batch) -> dict[str, Tensor]:
    """What takes no saliency maps: PLC, PALC, PAC, PSC, PRC, CAC and CRC of a batch's images."""
    first, second = batch.answers, batch.perturbed.answers
    changes = of_answers(batch.evidence, first, second, batch.valid_BK, batch.prototypes_Bk)
    return {name: change_Bk.nanmean(dim=1) for name, change_Bk in changes.items()} | {
        "cac": cac(first.logits_NC, second.logits_NC),
        "crc": crc(first.logits_NC, second.logits_NC),
    }


def of_maps(batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
    """VLC, VAC and, with part locations, stability of a batch's images."""
    evidence, copies = batch.evidence, batch.perturbed
    crop_Bk = evidence.crop_of(copies.answers.view_NP.gather(1, batch.prototypes_Bk))
    maps_BkSS, masks_BkSS = drawn.explanation.maps(
        batch.images_B, batch.prototypes_Bk, crop_Bk, copies
    )
    changes = {"vlc": vlc(drawn.masks_BkSS, masks_BkSS), "vac": vac(drawn.maps_BkSS, maps_BkSS)}
    if evidence.parts_NQ2 is not None:
        parts_BQ2 = evidence.parts_NQ2[batch.images_B]
        changes["stability"] = stability(drawn.masks_BkSS, masks_BkSS, parts_BQ2)
    return {name: change_Bk.nanmean(dim=1) for name, change_Bk in changes.items()}


def of_answers(
    evidence: Evidence, first: Answers, second: Answers, valid_BK: Tensor, prototypes_Bk: Tensor
) -> dict[str, Tensor]:
    """PLC, PALC, PAC, PSC and PRC of B images and copies of them, each Bk; of a black box PSC and
    PRC, of the logits."""
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
    """Visual location change: 1 − IoU of two saliency masks, ×100: Bk; 0 to 100.

    Two empty masks differ by 0.
    """
    return 100 * mask_distance(first_BkSS, second_BkSS)


def vac(first_BkSS: Tensor, second_BkSS: Tensor) -> Tensor:
    """Visual activation change: 1 − Σmin/Σmax of two maps' sorted values, ×100: Bk; 0 to 100.

    Two all-zero maps differ by 0.
    """
    return 100 * value_distance(first_BkSS.flatten(-2), second_BkSS.flatten(-2)).clamp(max=1)


def plc(first_Bk: Tensor, second_Bk: Tensor, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """Prototype location change: the Manhattan distance between the places of the similarity maps'
    maxima: float64, Bk; 0 and more.

    Where a crop is a view, the places are the numbers of crops: |crop − crop'|. Where a view is a
    cell of a crop's map, the distances of rows and columns count as well.

    Args:
        first_Bk, second_Bk: int64, views.
        grid: how many rows and columns of views a crop has.
    """
    rows, columns = grid
    sides = torch.tensor([rows * columns, columns, 1])
    limits = torch.tensor([torch.iinfo(torch.int64).max, rows, columns])
    first_Bk3, second_Bk3 = ((v[..., None] // sides) % limits for v in (first_Bk, second_Bk))
    return (first_Bk3 - second_Bk3).abs().sum(-1).double()


def palc(first_BkV: Tensor, second_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """Prototype activation location change: 1 − IoU of two similarity maps, ×100: Bk; 0 to 100.

    Each map is min–max normalised over the valid views, and the views at or above 0.5 are its
    places. A map that is the same everywhere, as that of a single valid crop, has no range to be
    normalised by: all its views are at its maximum, and all count.
    """
    first, second = (_upper_half(map_BkV, valid_BV) for map_BkV in (first_BkV, second_BkV))
    shared_Bk = (first & second).sum(dim=-1)
    return 100 * one_minus_iou(shared_Bk, first.sum(dim=-1), second.sum(dim=-1))


def pac(first_BkV: Tensor, second_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """Prototype activation change: 1 − Σmin/Σmax of two similarity maps' sorted values, ×100: Bk;
    0 to 100.

    Over the valid views; as no s is negative, zeros in place of the others leave both sums as they
    are. Two all-zero maps differ by 0.
    """
    missing_B1V = ~valid_BV[:, None]
    first, second = (s_BkV.masked_fill(missing_B1V, 0) for s_BkV in (first_BkV, second_BkV))
    return 100 * value_distance(first, second).clamp(max=1)


def psc(first_Bk: Tensor, second_Bk: Tensor) -> Tensor:
    """Prototype similarity change: |s − s'| / |s|, ×100: float64, Bk; 0 to ∞.

    s is the similarity of the prototype to the image; of a black box, the logit. 0
    where the two are equal, 0 and 0 too; infinite where s alone is 0, and then so is the image's
    value: `summary.summarise` leaves it out and counts it.
    """
    change_Bk = (first_Bk.double() - second_Bk.double()).abs()
    return torch.where(change_Bk == 0, 0.0, 100 * change_Bk / first_Bk.abs())


def prc(first_BP: Tensor, second_BP: Tensor, prototypes_Bk: Tensor) -> Tensor:
    """Prototype rank change: |rank − rank'| among all P by falling similarity: float64, Bk;
    0 to P − 1.

    Equal similarities rank by prototype number.

    Args:
        first_BP, second_BP: the similarities of all prototypes.
        prototypes_Bk: int64, those to look at.
    """
    first_Bk, second_Bk = (_ranks(s).gather(1, prototypes_Bk) for s in (first_BP, second_BP))
    return (first_Bk - second_Bk).abs().double()


def cac(first_BC: Tensor, second_BC: Tensor) -> Tensor:
    """Classification activation change: 1 − Σmin/Σmax of the sorted logits, ×100: float64, B.

    0 for equal logits; 0 to 100 when none is negative. Logits may be negative: a Σmin below 0 takes
    it above 100, without a bound. NaN where Σmax is 0 or less, as the quotient then says nothing of
    a change.
    """
    first_BC, second_BC = first_BC.double(), second_BC.double()
    change_B = value_distance(first_BC, second_BC)
    largest_B = torch.maximum(first_BC.sort().values, second_BC.sort().values).sum(dim=-1)
    return 100 * torch.where((largest_B > 0) | (change_B == 0), change_B, torch.nan)


def crc(first_BC: Tensor, second_BC: Tensor) -> Tensor:
    """Classification rank change: the new rank of the class that was predicted first: float64, B;
    0 (still first) to C − 1.

    Equal logits rank by class number.
    """
    predicted_B1 = ranking(first_BC)[:, :1]
    return _ranks(second_BC).gather(1, predicted_B1)[:, 0].double()


def stability(first_BkSS: Tensor, second_BkSS: Tensor, parts_BQ2: Tensor) -> Tensor:
    """Of the parts on either saliency mask, the share on both, ×100: Bk; 0 to 100, 100 is best.

    NaN where no part lies on either: such a pair of image and prototype is left out, and an image
    of which none is left has no value.

    Args:
        first_BkSS, second_BkSS: bool, saliency masks.
        parts_BQ2: (x, y) of the parts; for when one lies on a mask, see `complexity.part_hits`.
    """
    first_BkQ, second_BkQ = (part_hits(masks, parts_BQ2) for masks in (first_BkSS, second_BkSS))
    return 100 * (first_BkQ & second_BkQ).sum(dim=-1) / (first_BkQ | second_BkQ).sum(dim=-1)


def _upper_half(map_BkV: Tensor, valid_BV: Tensor) -> Tensor:
    """The valid views whose value is at least halfway from the smallest to the largest: bool."""
    valid_B1V = valid_BV[:, None]
    low = map_BkV.masked_fill(~valid_B1V, torch.inf).amin(dim=-1, keepdim=True)
    high = map_BkV.masked_fill(~valid_B1V, -torch.inf).amax(dim=-1, keepdim=True)
    return (map_BkV - low >= 0.5 * (high - low)) & valid_B1V


def _ranks(scores_BP: Tensor) -> Tensor:
    """The rank of each score, 0 for the largest: the inverse of `ranking`'s permutation."""
    return ranking(scores_BP).argsort(dim=1)
