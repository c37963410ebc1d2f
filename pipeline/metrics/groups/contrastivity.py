"""Contrastivity: how different the prototypes, and their locations in an image, are.

Formulas: docs/method.md, "Metrics", Contrastivity; Schlinge et al. 2025 (arXiv 2507.06819). With a
single prototype per image (k = 1) there are no pairs, and a mean over pairs is 0.

Dimensions: those of `evidence`.
"""

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Drawn, Evidence
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register

COSINE_FLOOR = 1e-5
ENTROPY_BINS = 10
BOX = 72 / 224
"""Side of the boxes of `distinctiveness`, as a share of the map's side (Zhu et al., 2025)."""
PROBABILITY_FLOOR = 1e-3


@register
class Contrastivity(MetricGroup):
    """How different the prototypes, and their locations in an image, are."""

    name = "contrastivity"
    question = "Do different prototypes say different things?"
    notes: ClassVar = {
        "vlc": Note(
            "Location change", PERCENT, "higher", "How little an image's prototypes overlap in it."
        ),
        "vac": Note(
            "Activation change", PERCENT, "higher", "How differently its saliency maps are filled."
        ),
        "distinctiveness": Note(
            "Distinctiveness",
            PERCENT,
            "higher",
            "How far apart its prototypes are found: 1 − overlap of boxes around the places.",
        ),
        "intra_pd": Note(
            "Prototype distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the prototypes that explain one image are.",
        ),
        "inter_pd": Note(
            "Prototype distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the prototypes of images of different classes are.",
        ),
        "intra_fd": Note(
            "Crop distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the crops used in one image are.",
        ),
        "inter_fd": Note(
            "Crop distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the crops used in images of different classes are.",
        ),
        "entropy": Note(
            "Entropy",
            "bits, 0 to 1",
            "lower",
            "How evenly a prototype's similarities spread; low: clearly there, or clearly not.",
        ),
    }
    cell_notes: ClassVar = {
        "intra_fd": Note(
            "Cell distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the cells used in one image are.",
        ),
        "inter_fd": Note(
            "Cell distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the cells used in images of different classes are.",
        ),
    }
    needs_prototypes = True

    def measure(self, evidence: Evidence) -> Values:
        """Returns intra PD and intra FD of each image; inter PD, inter FD and entropy of the split.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        top_Nk, outputs = evidence.top_Nk, evidence.outputs
        prototypes_NkD = evidence.prototypes_PD[top_Nk]
        views_Nk = outputs.view_NP.gather(1, top_Nk)
        embedding_NkD = outputs.embedding_NVD[torch.arange(len(views_Nk))[:, None], views_Nk]
        return {
            "intra_pd": intra_pd(prototypes_NkD),
            "inter_pd": inter_pd(prototypes_NkD, evidence.labels_N),
            "intra_fd": intra_fd(embedding_NkD),
            "inter_fd": inter_fd(embedding_NkD, evidence.labels_N),
            "entropy": float(entropy(outputs.similarity_NP[:, top_Nk.unique()]).mean()),
        }

    def of_maps(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns VLC, VAC and distinctiveness of a batch's images, float32 B each.

        Args:
            batch: the B images, with the model's outputs for them.
            drawn: the saliency maps and masks of the images' k prototypes.
        """
        return {
            "vlc": vlc(drawn.masks_BkSS),
            "vac": vac(drawn.maps_BkSS),
            "distinctiveness": distinctiveness(drawn.maps_BkSS),
        }


def vlc(masks_BkSS: Tensor) -> Tensor:
    """Returns the visual location change: 1 − IoU of saliency masks, ×100: float32 B, 0..100.

    The mean over all ordered pairs of an image's k masks; two empty masks have distance 0.

    Args:
        masks_BkSS: saliency masks of the images' prototypes, bool B×k×S×S.
    """
    masks_BkV = masks_BkSS.flatten(2).float()
    shared_Bkk = masks_BkV @ masks_BkV.transpose(1, 2)
    area_Bk = masks_BkV.sum(dim=-1)
    return 100 * mean_over_pairs(one_minus_iou(shared_Bkk, area_Bk[:, :, None], area_Bk[:, None]))


def vac(maps_BkSS: Tensor) -> Tensor:
    """Returns the visual activation change of an image's maps, ×100: float32 B, 0..100.

    The mean of 1 − Σmin/Σmax of the sorted values over all ordered pairs of an image's k maps; two
    all-zero maps have distance 0.

    Args:
        maps_BkSS: saliency maps of the images' prototypes, float32 B×k×S×S, ≥ 0.
    """
    sorted_BkV = sort(maps_BkSS.flatten(2))
    gap_Bkk = torch.cdist(sorted_BkV, sorted_BkV, p=1)
    sum_Bk = sorted_BkV.sum(dim=-1)
    distance_Bkk = one_minus_overlap(gap_Bkk, sum_Bk[:, :, None], sum_Bk[:, None])
    return 100 * mean_over_pairs(distance_Bkk.clamp(max=1))


def distinctiveness(maps_BkSS: Tensor) -> Tensor:
    """Returns how far apart an image's maps have their maxima, ×100: float32 B, 0..100.

    The distinctiveness score of Zhu et al. (2025, arXiv 2503.10247), of an image's k prototypes:
    1 − IoU of square boxes of `BOX`·S pixels a side around the maps' maxima, mean over all pairs; 0
    if k is 1. A map's maximum is the centre of mass of its largest values, which in a mask are
    many. Pairs with an all-zero map are excluded, and an image without any other pair is NaN.

    Args:
        maps_BkSS: saliency maps of the images' prototypes, float32 B×k×S×S, ≥ 0.
    """
    k, size = maps_BkSS.shape[1:3]
    if k == 1:
        return maps_BkSS.new_zeros(len(maps_BkSS))
    largest_Bk11 = maps_BkSS.amax(dim=(2, 3), keepdim=True)
    peak_BkSS = ((maps_BkSS == largest_Bk11) & (largest_Bk11 > 0)).float()
    lines_BkS2 = torch.stack([peak_BkSS.sum(2), peak_BkSS.sum(3)], dim=-1)
    centre_Bk2 = (lines_BkS2 * torch.arange(size)[:, None]).sum(2) / lines_BkS2.sum(2)
    away_Bkk2 = (centre_Bk2[:, :, None] - centre_Bk2[:, None]).abs()
    shared_Bkk = (1 - away_Bkk2 / (BOX * size)).clamp(min=0).prod(dim=-1)
    pairs_kk = ~torch.eye(k, dtype=torch.bool)
    return 100 * (1 - shared_Bkk / (2 - shared_Bkk))[:, pairs_kk].nanmean(dim=1)


def mask_distance(first_SS: Tensor, second_SS: Tensor) -> Tensor:
    """Returns 1 − IoU of two masks, float (…), 0..1; 0 for two empty ones.

    Args:
        first_SS: bool (…)×S×S, the first masks; leading dimensions broadcast with the second.
        second_SS: bool (…)×S×S, the second masks.
    """
    shared = (first_SS & second_SS).sum(dim=(-2, -1))
    return one_minus_iou(shared, first_SS.sum(dim=(-2, -1)), second_SS.sum(dim=(-2, -1)))


def value_distance(first_V: Tensor, second_V: Tensor) -> Tensor:
    """Returns 1 − Σmin/Σmax of two sorted lists of values, float (…).

    It compares the distributions of the values: 0 for equal lists, also all-zero ones; at most 1
    for values ≥ 0.

    Args:
        first_V: float (…)×V, the first lists; leading dimensions broadcast with the second.
        second_V: float (…)×V, the second lists.
    """
    gap = (sort(first_V) - sort(second_V)).abs().sum(dim=-1)
    return one_minus_overlap(gap, first_V.sum(dim=-1), second_V.sum(dim=-1))


def one_minus_iou(shared: Tensor, first_area: Tensor, second_area: Tensor) -> Tensor:
    """Returns 1 − intersection / union of two regions, float, 0..1; 0 where the union is 0.

    Args:
        shared: area of the intersection in pixels (or views), a tensor of any shape.
        first_area: area of the first region, in the same unit; broadcasts with `shared`.
        second_area: area of the second region, in the same unit; broadcasts with `shared`.
    """
    union = first_area + second_area - shared
    return torch.where(union > 0, 1 - shared / union, 0.0)


def one_minus_overlap(gap: Tensor, first_sum: Tensor, second_sum: Tensor) -> Tensor:
    """Returns 1 − Σmin/Σmax of two lists a and b of values; 0 where Σ|a − b| is 0.

    Σmax − Σmin = Σ|a − b| and Σmax + Σmin = Σa + Σb, so that no pair's min and max are stored.

    Args:
        gap: Σ|a − b|, float ≥ 0, a tensor of any shape.
        first_sum: Σa, a float tensor that broadcasts with `gap`.
        second_sum: Σb, a float tensor that broadcasts with `gap`.
    """
    return torch.where(gap > 0, 2 * gap / (first_sum + second_sum + gap), 0.0)


def sort(values_V: Tensor) -> Tensor:
    """Returns the values sorted along the last dimension, ascending, on the CPU.

    NumPy's sort takes less than half of the time of torch's, which also returns indices.

    Args:
        values_V: values on the CPU, (…)×V, of any dtype.
    """
    return torch.from_numpy(np.sort(values_V.numpy(), axis=-1))


def mean_over_pairs(distance_Bkk: Tensor) -> Tensor:
    """Returns the mean over all ordered pairs of two different members, float B; 0 if k is 1.

    Args:
        distance_Bkk: distances between the k members of each image, float B×k×k.
    """
    k = distance_Bkk.shape[1]
    if k == 1:
        return distance_Bkk.new_zeros(len(distance_Bkk))
    return distance_Bkk[:, ~torch.eye(k, dtype=torch.bool)].mean(dim=1)


def intra_pd(prototypes_BkD: Tensor) -> Tensor:
    """Returns the mean cosine distance between an image's k prototypes, float B, 0..2.

    The mean is over all ordered pairs; distances below 1e-5 count as 0. A zero vector has distance
    1 to every vector. Applied to the embeddings of the views used, this is intra FD.

    Args:
        prototypes_BkD: the k prototypes (or embeddings) of each image, float B×k×D.
    """
    unit_BkD = normalize(prototypes_BkD, dim=-1)
    distance_Bkk = 1 - unit_BkD @ unit_BkD.transpose(1, 2)
    return mean_over_pairs(torch.where(distance_Bkk < COSINE_FLOOR, 0.0, distance_Bkk))


def inter_pd(prototypes_NkD: Tensor, labels_N: Tensor) -> float:
    """Returns the mean cosine distance of prototypes between images of different classes, 0..2.

    For each class, the mean over its images, the other classes' images and i = 1..k of the distance
    between the two images' i-th ranked prototypes; then the mean over the classes that have images.
    0 for a single class. A zero vector has distance 1 to every vector. Applied to the embeddings of
    the views used, this is inter FD.

    The mean of u·v over all pairs is the product of the mean u and the mean v, so pairs need not be
    enumerated: mean of (1 − u·v) = 1 − ū·v̄, exactly.

    Args:
        prototypes_NkD: the k prototypes (or embeddings) of each image by rank, float N×k×D.
        labels_N: int64 N, the images' classes, 0..C−1.
    """
    classes_C, count_C = labels_N.unique(return_counts=True)
    if len(classes_C) == 1:
        return 0.0
    sum_CkD = torch.stack(
        [normalize(prototypes_NkD[labels_N == c].double(), dim=-1).sum(dim=0) for c in classes_C]
    )
    others_CkD = sum_CkD.sum(dim=0) - sum_CkD
    pairs_C = count_C * (len(labels_N) - count_C) * prototypes_NkD.shape[1]
    distance_C = 1 - (sum_CkD * others_CkD).sum(dim=(1, 2)) / pairs_C
    return max(0.0, float(distance_C.mean()))


intra_fd = intra_pd
inter_fd = inter_pd


def entropy(similarity_NP: Tensor) -> Tensor:
    """Returns the entropy of each prototype's similarities over N images, in bits: float64 P.

    The similarities are divided by their maximum and counted in 10 bins on [0, 1] (the last one
    closed); probabilities below 0.001 are dropped, and the entropy is clamped to [0, 1]. A
    prototype whose similarities are all 0 has entropy 0.

    Args:
        similarity_NP: s_j of each image and prototype, float N×P, ≥ 0.
    """
    largest_P = similarity_NP.amax(dim=0)
    scaled_NP = ENTROPY_BINS * similarity_NP / torch.where(largest_P > 0, largest_P, 1.0)
    bins_NP = scaled_NP.floor().clamp(0, ENTROPY_BINS - 1)
    probability = torch.stack(
        [(bins_NP == b).double().mean(dim=0) for b in range(ENTROPY_BINS)], dim=1
    )
    probability[probability < PROBABILITY_FLOOR] = 0
    return (torch.special.entr(probability).sum(dim=1) / math.log(2)).clamp(0, 1)
