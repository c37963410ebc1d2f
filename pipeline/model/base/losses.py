"""The terms of the training losses.

Dimensions: B images, V views of an image, D embedding, C classes, M prototypes a class, P
prototypes, K slots of a class.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

TINY = 1e-8


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Returns the loss: the terms' weighted sum; separation counts negative.

    Args:
        terms: scalars by name.
        weights: of the same names; `cross_entropy` weighs 1 where it is not among them.
    """
    signs = {"separation": -1.0}
    parts = [signs.get(name, 1.0) * weights.get(name, 1.0) * terms[name] for name in terms]
    return torch.stack(parts).sum()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Returns N / (C·n_c) for each class, float32 C; 0 for a class without images."""
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts.clamp_min(1))
    return torch.where(counts > 0, weights, 0.0)


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor) -> Tensor:
    """Returns CE, averaged with the weight of each image's class."""
    return functional.cross_entropy(logits_BC, labels_B, weights_C)


def cluster(distance_BP: Tensor, own_BP: Tensor) -> Tensor:
    """Returns Clst: the mean over images of the smallest distance to a prototype of their own.

    Args:
        distance_BP: d_j of every image and prototype.
        own_BP: bool, which prototypes are of each image's class.
    """
    return distance_BP.masked_fill(~own_BP, torch.inf).amin(1).mean()


def separation(distance_BP: Tensor, own_BP: Tensor) -> Tensor:
    """Returns Sep: the mean over images of the smallest distance to a prototype not of their own.

    Args: as `cluster`.
    """
    return cluster(distance_BP, ~own_BP)


def diversity(prototypes_CMD: Tensor) -> Tensor:
    """Returns exp(−0.001 · Σ ‖p_j − p_l‖₂) over the ordered pairs of each class's prototypes: C."""
    exact = "donot_use_mm_for_euclid_dist"
    distance_CMM = torch.cdist(prototypes_CMD, prototypes_CMD, compute_mode=exact)
    return torch.exp(-0.001 * distance_CMM.sum((1, 2)))


def off_class_penalty(classifier_CP: Tensor, own_CP: Tensor) -> Tensor:
    """Returns Σ |V_cj| over the classes c that prototype j is not of: a scalar."""
    return (classifier_CP.abs() * ~own_CP).sum()


def orthogonality(slots_CKP: Tensor) -> Tensor:
    """Returns the cosines between the slots of a class, summed over ordered pairs and averaged over
    all slots: 0 for slots that choose different prototypes, K − 1 where all choose the same.

    Rymarczyk et al. (2022), L_orth, averaged as in their code.
    """
    C, K, _ = slots_CKP.shape
    unit_CKP = functional.normalize(slots_CKP, dim=-1)
    cosine_CKK = unit_CKP @ unit_CKP.mT
    return (cosine_CKK.sum() - cosine_CKK.diagonal(dim1=1, dim2=2).sum()) / (C * K)


def alignment(first_BVD: Tensor, second_BVD: Tensor) -> Tensor:
    """Returns −log z·z', averaged over cells and over both views as the one that learns.

    Nauta et al. (2023), L_A: the same cell of two views of an image should have the same prototype.
    """
    agree = [
        (first_BVD * second_BVD.detach()).sum(-1),
        (first_BVD.detach() * second_BVD).sum(-1),
    ]
    return -torch.log(torch.stack(agree) + TINY).mean()


def presence(score_BD: Tensor) -> Tensor:
    """Returns −log tanh Σ_b p_bd, averaged over prototypes: each is to be seen in some image.

    Nauta et al. (2023), L_T.
    """
    return -torch.log(torch.tanh(score_BD.sum(0)) + TINY).mean()
