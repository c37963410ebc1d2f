"""Truth: whether prototypes respond to what is known to be relevant, in a data set that was drawn.

For each drawing the part that each pixel shows and the parts in which two classes differ are known,
and it can be drawn again with one part of another class. A prototype's location is here given by
its relevance: its saliency map within its saliency mask.

Dimensions: those of `evidence`.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Drawn, Evidence, ranking
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register
from pipeline.saliency.maps import Explanation
from pipeline.saliency.margin import prototype_points, region_points

NO_PART = -1


@register
class Truth(MetricGroup):
    """Whether prototypes respond to what is known to be relevant, in a drawn data set."""

    name = "truth"
    question = "Does it look where the classes are known to differ?"
    notes: ClassVar = {
        "purity": Note(
            "Purity", PERCENT, "higher", "Share of a prototype's saliency on a single part."
        ),
        "part_agreement": Note(
            "Part agreement", PERCENT, "higher", "How often a prototype is found on the same part."
        ),
        "discrimination": Note(
            "Discrimination",
            PERCENT,
            "higher",
            "Share of the evidence on parts that tell the class from the runner-up.",
        ),
        "discrimination_margin": Note(
            "Discrimination by margin",
            PERCENT,
            "higher",
            "Share of the points for the class, not the runner-up, that lies on such parts.",
        ),
        "decisive_region": Note(
            "Decisive region",
            PERCENT,
            "higher",
            "Share of the region with the most such points that shows such parts.",
        ),
        "discrimination_nearest": Note(
            "Discrimination from the nearest class",
            PERCENT,
            "higher",
            "The same share of the points for its own class, not for the one that differs least.",
        ),
        "decisive_nearest": Note(
            "Decisive region, nearest class",
            PERCENT,
            "higher",
            "And of the region with the most of these points.",
        ),
        "deletion_on": Note(
            "Deletion, on it",
            PERCENT,
            "higher",
            "How much a similarity changes when its own part is replaced.",
        ),
        "deletion_off": Note(
            "Deletion, off it", PERCENT, "lower", "And how much when another part is."
        ),
        "deletion_auc": Note(
            "Deletion AUC",
            PERCENT,
            "higher",
            "How well these changes tell which part was replaced; 50 is chance.",
        ),
    }

    def unavailable(self, evidence: Evidence) -> dict[str, str]:
        """Returns all metrics with the reason, for data sets that were not drawn.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        if evidence.truth is not None:
            return {}
        why = "the data set does not know what tells its classes apart (only `demo` does)"
        return dict.fromkeys(self.notes, why)

    def of_maps(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns purity, discrimination (by prototypes and by regions) and deletion of images.

        Args:
            batch: the B images, with the model's outputs for them and for their redrawn copies.
            drawn: the saliency maps and masks of the images' k prototypes.

        Returns:
            For each image (float B): `purity`; `discrimination`; `discrimination_margin`;
            `decisive_region`, and the same two for the image's own class and the nearest
            (`nearest_classes`), which are the same pair for every model; `deletion_on` and
            `deletion_off`, the mean `similarity_change` of the prototypes that were found mainly on
            the replaced part (its pixels in either drawing), and of the others; NaN without any
            such prototype.
            For `from_maps` (B×k): `main_part` (int64); `on_replaced` (bool), whether a prototype
            was found mainly on the replaced part; and its `change` (float).
            Nothing for a data set that was not drawn.
        """
        truth = batch.evidence.truth
        if truth is None:
            return {}
        num_parts = truth.distinguishing_CCQ.shape[-1]
        relevance_BkSS = drawn.maps_BkSS * drawn.masks_BkSS
        share_BkQ = part_shares(relevance_BkSS, batch.labels_BSS, num_parts)
        _, part_B, now_BSS = batch.redrawn
        either_BSS = labels_of_both(batch.labels_BSS, now_BSS, part_B)
        on_Bk = main_part(part_shares(relevance_BkSS, either_BSS, num_parts)) == part_B[:, None]
        change_Bk = _changes(batch)
        first_B, second_B = _first_two(batch)
        apart = _apart(batch, first_B, second_B)
        between_BkQ = part_shares(relevance_BkSS, apart.labels_BSS, num_parts)
        own_B = batch.evidence.labels_N[batch.images_B]
        nearest_B = nearest_classes(truth.distinguishing_CCQ)[own_B]
        margin_B, decisive_B = _margins(batch, drawn.explanation, apart)
        nearest_margin_B, nearest_region_B = margin_B.clone(), decisive_B.clone()
        if (other_B := (own_B != first_B) | (nearest_B != second_B)).any():
            others = Batch(batch.evidence, batch.images_B[other_B])
            nearest = _apart(others, own_B[other_B], nearest_B[other_B])
            found = _margins(others, drawn.explanation, nearest)
            nearest_margin_B[other_B], nearest_region_B[other_B] = found
        return {
            "purity": purity(share_BkQ),
            "discrimination": discrimination(between_BkQ, _support(batch, first_B), apart.parts_BQ),
            "discrimination_margin": margin_B,
            "decisive_region": decisive_B,
            "discrimination_nearest": nearest_margin_B,
            "decisive_nearest": nearest_region_B,
            "deletion_on": change_Bk.where(on_Bk, torch.nan).nanmean(dim=1),
            "deletion_off": change_Bk.where(~on_Bk, torch.nan).nanmean(dim=1),
            "main_part": main_part(share_BkQ),
            "on_replaced": on_Bk,
            "change": change_Bk,
        }

    def from_maps(self, evidence: Evidence, gathered: dict[str, Tensor]) -> Values:
        """Returns the values per image unchanged, and part agreement and deletion AUC.

        Args:
            evidence: a model's outputs for the N images of a split.
            gathered: the results of `of_maps` for all N images, by name.
        """
        if evidence.truth is None:
            return {}
        num_parts = evidence.truth.distinguishing_CCQ.shape[-1]
        return {
            **{name: value for name, value in gathered.items() if name in self.notes},
            "part_agreement": part_agreement(gathered["main_part"], evidence.top_Nk, num_parts),
            "deletion_auc": deletion_auc(gathered["change"], gathered["on_replaced"]),
        }


def part_shares(relevance_BkSS: Tensor, labels_BSS: Tensor, num_parts: int) -> Tensor:
    """Returns the share of a map's relevance on each part, float32 B×k×Q, 0..1.

    NaN for an all-zero map.

    Args:
        relevance_BkSS: relevance of each pixel, float32 B×k×S×S, ≥ 0.
        labels_BSS: the part that each pixel shows, integer B×S×S: 0 for none, q + 1 for part q.
        num_parts: Q, the number of parts of the data set, ≥ 1.
    """
    relevance_BkV = relevance_BkSS.flatten(2)
    labels_BkV = labels_BSS.long().flatten(1)[:, None].expand_as(relevance_BkV)
    # A sixth of the time of a matrix product with one-hot labels.
    on_BkL = relevance_BkSS.new_zeros(*relevance_BkV.shape[:2], num_parts + 1)
    on_BkL.scatter_add_(2, labels_BkV, relevance_BkV)
    return on_BkL[..., 1:] / on_BkL.sum(dim=-1, keepdim=True)


def labels_of_both(labels_BSS: Tensor, now_BSS: Tensor, part_B: Tensor) -> Tensor:
    """Returns each pixel's part, int64 B×S×S: the replaced one where either drawing shows it.

    Args:
        labels_BSS: uint8 B×S×S, the part in the original drawing: 0 for none, q + 1 for part q.
        now_BSS: uint8 B×S×S, the part in the changed drawing, with the same labels.
        part_B: int64 B, the replaced part of each image, 0..Q−1.
    """
    label_B11 = part_B[:, None, None] + 1
    return torch.where(now_BSS == label_B11, label_B11, labels_BSS)


def main_part(share_BkQ: Tensor) -> Tensor:
    """Returns the part with most of a map's relevance, int64 B×k; −1 if none lies on any part.

    Args:
        share_BkQ: share of the map's relevance on each part, float B×k×Q; NaN for an all-zero map.
    """
    most_Bk, part_Bk = share_BkQ.nan_to_num().max(dim=-1)
    return part_Bk.where(most_Bk > 0, NO_PART)


def purity(share_BkQ: Tensor) -> Tensor:
    """Returns the share of a map's relevance on its main part, ×100: float B, 0..100.

    The mean over the image's k maps; all-zero ones are excluded, and an image without any other map
    is NaN.

    Args:
        share_BkQ: share of the map's relevance on each part, float B×k×Q; NaN for an all-zero map.
    """
    return 100 * share_BkQ.amax(dim=-1).nanmean(dim=1)


def discrimination(share_BkQ: Tensor, support_Bk: Tensor, parts_BQ: Tensor) -> Tensor:
    """Returns the share of the evidence for a class that lies on distinguishing parts, ×100.

    The support of the k prototypes is distributed over the parts in proportion to their maps. The
    support of a prototype with an all-zero map lies on no part.

    Args:
        share_BkQ: share of the map's relevance on each part, float B×k×Q; NaN for an all-zero map.
        support_Bk: support of each prototype for the predicted class, float B×k, ≥ 0.
        parts_BQ: bool B×Q, the parts that distinguish the predicted class from the runner-up.

    Returns:
        float B, 0..100; NaN without any support, or without a distinguishing part.
    """
    on_Bk = (share_BkQ.nan_to_num() * parts_BQ[:, None]).sum(dim=-1)
    value_B = 100 * (support_Bk * on_Bk).sum(dim=1) / support_Bk.sum(dim=1)
    return value_B.where(parts_BQ.any(dim=1), torch.nan)


def discrimination_margin(share_BVQ: Tensor, points_BV: Tensor, parts_BQ: Tensor) -> Tensor:
    """Returns the share of the points for a class that lies on distinguishing parts, ×100.

    Regions that speak for the class rather than the runner-up have positive points, which are
    distributed over the parts in proportion to the region's saliency; others do not count.

    Args:
        share_BVQ: share of the region's saliency on each part, float B×V×Q; NaN for none.
        points_BV: points of each region for the class rather than the runner-up, float B×V.
        parts_BQ: bool B×Q, the parts that distinguish the two classes.

    Returns:
        float B, 0..100; NaN without any positive points, or without a distinguishing part.
    """
    return discrimination(share_BVQ, points_BV.clamp(min=0).to(share_BVQ.dtype), parts_BQ)


def decisive_region(share_BVQ: Tensor, points_BV: Tensor, parts_BQ: Tensor) -> Tensor:
    """Returns the share of the decisive region's saliency on distinguishing parts, ×100.

    The decisive region is the one with the most points, the first of equal ones.

    Args:
        share_BVQ: share of the region's saliency on each part, float B×V×Q; NaN for none.
        points_BV: points of each region for the class rather than the runner-up, float B×V.
        parts_BQ: bool B×Q, the parts that distinguish the two classes.

    Returns:
        float B, 0..100; NaN without any positive points, or without a distinguishing part.
    """
    first_B1 = ranking(points_BV)[:, :1]
    only_BV = torch.zeros_like(points_BV).scatter(1, first_B1, points_BV.gather(1, first_B1))
    return discrimination_margin(share_BVQ, only_BV, parts_BQ)


def nearest_classes(distinguishing_CCQ: Tensor) -> Tensor:
    """Returns the class that differs in the fewest parts, but in one, from each class: int64 C.

    The first of several; the class itself if no other differs from it.

    Args:
        distinguishing_CCQ: bool C×C×Q, the parts in which two classes differ.
    """
    count_CC = distinguishing_CCQ.sum(dim=-1)
    most = distinguishing_CCQ.shape[-1] + 1
    apart_CC = count_CC.masked_fill(count_CC == 0, most).fill_diagonal_(most)
    nearest_C = torch.from_numpy(apart_CC.numpy().argmin(axis=1))
    return nearest_C.where(apart_CC.amin(dim=1) < most, torch.arange(len(nearest_C)))


def part_agreement(main_part_Nk: Tensor, top_Nk: Tensor, num_parts: int) -> float:
    """Returns how consistently a prototype is found on the same part, ×100: 0..100.

    For each prototype that is among the k of at least two images: the share of these images in
    which its main part is its most frequent one (no part counts as a mismatch). Then the mean over
    these prototypes; NaN if there is none.

    Args:
        main_part_Nk: int64 N×k, the part with most of each map's relevance, 0..Q−1; −1 for none.
        top_Nk: int64 N×k, the prototypes that explain each image, 0..P−1.
        num_parts: Q, the number of parts of the data set, ≥ 1.
    """
    used_P, place_Nk, count_P = top_Nk.unique(return_inverse=True, return_counts=True)
    found_XQ = main_part_Nk.flatten()[:, None] == torch.arange(num_parts)
    found_PQ = torch.zeros(len(used_P), num_parts, dtype=torch.float64)
    found_PQ.index_add_(0, place_Nk.flatten(), found_XQ.double())
    share_P = found_PQ.amax(dim=1) / count_P
    return 100 * float(share_P[count_P > 1].mean())


def similarity_change(before: Tensor, after: Tensor) -> Tensor:
    """Returns |s − s'| / s, ×100: float ≥ 0, of the same shape; NaN where s is not positive.

    Args:
        before: s, similarities to the images, float, of any shape.
        after: s', similarities to the changed images, float, of the same shape.
    """
    return (100 * (before - after).abs() / before).where(before > 0, torch.nan)


def deletion_auc(change_Nk: Tensor, on_Nk: Tensor) -> float:
    """Returns how well the change of similarity identifies the replaced part, ×100: 0..100.

    The probability that a prototype on the replaced part changes more than one that is not (the
    area under the ROC curve; equal changes count half), over all prototypes of all images. 50 is
    chance; NaN unless there are prototypes of both kinds.

    Args:
        change_Nk: change of each prototype's similarity in %, float N×k, ≥ 0; values that are not
            finite are excluded.
        on_Nk: bool N×k, whether the prototype was found mainly on the replaced part.
    """
    from sklearn.metrics import roc_auc_score

    known_Nk = change_Nk.isfinite()
    on_X, change_X = on_Nk[known_Nk], change_Nk[known_Nk]
    if on_X.all() or not on_X.any():
        return torch.nan
    return 100 * float(roc_auc_score(on_X.numpy(), change_X.numpy()))


def _first_two(batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the predicted class and the runner-up of each image, int64 B each.

    They are the same if there is a single class.
    """
    classes_BC = ranking(batch.outputs.logits_NC)[:, :2]
    return classes_BC[:, 0], classes_BC[:, -1]


def _support(batch: Batch, class_B: Tensor) -> Tensor:
    """Returns the k prototypes' support for a class: similarity × weight, at least 0; float B×k."""
    weights_Bk = batch.evidence.weights_CP[class_B].gather(1, batch.prototypes_Bk)
    similarity_Bk = batch.outputs.similarity_NP.gather(1, batch.prototypes_Bk)
    return (similarity_Bk * weights_Bk).clamp(min=0)


class _Apart(NamedTuple):
    """Where images show, or lack, the parts that tell two classes apart.

    Args:
        first_B, second_B: int64 B, the classes.
        labels_BSS: uint8 B×S×S, the part that each pixel shows or lacks (`Truth.labels_between`).
        parts_BQ: bool B×Q, the parts that tell them apart and have pixels.
    """

    first_B: Tensor
    second_B: Tensor
    labels_BSS: Tensor
    parts_BQ: Tensor


def _apart(batch: Batch, first_B: Tensor, second_B: Tensor) -> _Apart:
    truth = batch.evidence.truth
    assert truth is not None
    labels_BSS = truth.labels_between(batch.images_B, first_B, second_B)
    parts_BQ = truth.distinguishing_CCQ[first_B, second_B]
    shown_BL = torch.zeros(len(parts_BQ), parts_BQ.shape[1] + 1, dtype=torch.bool)
    shown_BL.scatter_(1, labels_BSS.flatten(1).long(), True)
    return _Apart(first_B, second_B, labels_BSS, parts_BQ & shown_BL[:, 1:])


def _margins(batch: Batch, explanation: Explanation, apart: _Apart) -> tuple[Tensor, Tensor]:
    """Returns `discrimination_margin` and `decisive_region` of one class rather than another."""
    points_BV, share_BVQ = _regions(batch, explanation, apart)
    return (
        discrimination_margin(share_BVQ, points_BV, apart.parts_BQ),
        decisive_region(share_BVQ, points_BV, apart.parts_BQ),
    )


def _regions(batch: Batch, explanation: Explanation, apart: _Apart) -> tuple[Tensor, Tensor]:
    """Returns the points of each region for one class rather than another, and what it shows.

    Returns:
        The points (float64 B×V); and the share of each region's saliency on each part (float32
        B×V×Q), NaN for one without positive points, which no metric asks for.
    """
    first_B, second_B, labels_BSS, parts_BQ = apart
    outputs, weights_CP = batch.outputs, batch.evidence.weights_CP
    view_BP = outputs.view_NP
    points_BP = prototype_points(outputs.similarity_NP, weights_CP, first_B, second_B)
    points_BV = region_points(points_BP, view_BP, outputs.embedding_NVD.shape[1])
    weights_BP = (weights_CP[first_B] - weights_CP[second_B]).where(points_BP != 0, 0)
    num_parts = parts_BQ.shape[1]
    share_BVQ = torch.full((*points_BV.shape, num_parts), torch.nan)
    place_n, views_n = (points_BV > 0).nonzero(as_tuple=True)
    if len(place_n):
        weights_nP = weights_BP[place_n] * (view_BP[place_n] == views_n[:, None])
        maps_nSS = explanation.regions(batch.images_B[place_n], views_n, weights_nP)
        found_n1Q = part_shares(maps_nSS[:, None], labels_BSS[place_n], num_parts)
        share_BVQ[place_n, views_n] = found_n1Q[:, 0]
    return points_BV, share_BVQ


def _changes(batch: Batch) -> Tensor:
    """Returns the change of the k prototypes' similarities when a part is replaced, ×100: B×k."""
    both = (batch.outputs, batch.redrawn.copies.outputs)
    return similarity_change(*(a.similarity_NP.gather(1, batch.prototypes_Bk) for a in both))
