"""The training loss L = CE + 0.8·Clst − 0.2·Sep + 0.2·Div, term by term."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Terms(NamedTuple):
    """The four terms of L, each a scalar: the mean over a batch."""

    cross_entropy: Tensor
    cluster: Tensor
    separation: Tensor
    diversity: Tensor

    def total(self, cluster: float, separation: float, diversity: float) -> Tensor:
        """Returns L with these weights; separation's is subtracted."""
        return (
            self.cross_entropy
            + cluster * self.cluster
            - separation * self.separation
            + diversity * self.diversity
        )


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Returns N / (C·n_c) for each class, float32 C; 0 for a class without images."""
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts.clamp_min(1))
    return torch.where(counts > 0, weights, 0.0)


def loss_terms(
    logits_BC: Tensor,
    distance_BP: Tensor,
    labels_B: Tensor,
    prototypes_PD: Tensor,
    class_of_P: Tensor,
    weights_C: Tensor,
) -> Terms:
    """Returns the terms of L for a batch.

    Args:
        logits_BC: class scores.
        distance_BP: d_j of every image and prototype.
        labels_B: int64 classes.
        prototypes_PD: the prototypes, class after class, as many of each.
        class_of_P: int64, their classes.
        weights_C: cross-entropy weight of each class.
    """
    own_BP = labels_B[:, None] == class_of_P
    present, place_B = labels_B.unique(return_inverse=True)
    prototypes_CMD = prototypes_PD.unflatten(0, (len(weights_C), -1))
    return Terms(
        functional.cross_entropy(logits_BC, labels_B, weights_C),
        distance_BP.masked_fill(~own_BP, torch.inf).amin(1).mean(),
        distance_BP.masked_fill(own_BP, torch.inf).amin(1).mean(),
        diversity(prototypes_CMD[present])[place_B].mean(),
    )


def diversity(prototypes_CMD: Tensor) -> Tensor:
    """Returns exp(−0.001 · Σ ‖p_j − p_l‖₂) over the ordered pairs of each class's prototypes: C."""
    exact = "donot_use_mm_for_euclid_dist"
    distance_CMM = torch.cdist(prototypes_CMD, prototypes_CMD, compute_mode=exact)
    return torch.exp(-0.001 * distance_CMM.sum((1, 2)))


def off_class_penalty(classifier_CP: Tensor, class_of_P: Tensor) -> Tensor:
    """Returns Σ |V_cj| over the classes c that prototype j is not of: a scalar."""
    classes = torch.arange(len(classifier_CP), device=classifier_CP.device)
    return (classifier_CP.abs() * (classes[:, None] != class_of_P)).sum()
