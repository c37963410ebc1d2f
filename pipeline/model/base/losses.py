"""The terms of the training losses.

Dimensions: B images, V views of an image, D embedding, C classes, M prototypes per class, P
prototypes, K slots per class.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

TINY = 1e-8


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Returns the loss, a scalar: the weighted sum of its terms; separation counts negative.

    Args:
        terms: the terms of the loss by name, scalar tensors.
        weights: the weight of each term by name; a term that is absent has weight 1.
    """
    signs = {"separation": -1.0}
    parts = [signs.get(name, 1.0) * weights.get(name, 1.0) * terms[name] for name in terms]
    return torch.stack(parts).sum()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Returns the weight N / (C·n_c) of each class, float32 C; 0 for a class without images.

    Args:
        labels: int64 N, the classes of the training images, 0..C−1.
        num_classes: C, the number of classes, ≥ 1.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts.clamp_min(1))
    return torch.where(counts > 0, weights, 0.0)


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor) -> Tensor:
    """Returns the cross-entropy, averaged with the weight of each image's class; a scalar.

    Args:
        logits_BC: class scores of the images, float B×C.
        labels_B: int64 B, the images' classes, 0..C−1.
        weights_C: float C, the weight of each class, ≥ 0.
    """
    return functional.cross_entropy(logits_BC, labels_B, weights_C)


def cluster(distance_BP: Tensor, own_BP: Tensor) -> Tensor:
    """Returns Clst: the smallest distance to a prototype of the own class, averaged over images.

    Args:
        distance_BP: d_j of each image and prototype, float B×P, ≥ 0.
        own_BP: bool B×P, whether a prototype belongs to the image's class.
    """
    return distance_BP.masked_fill(~own_BP, torch.inf).amin(1).mean()


def separation(distance_BP: Tensor, own_BP: Tensor) -> Tensor:
    """Returns Sep: the smallest distance to a prototype of another class, averaged over images.

    Args:
        distance_BP: d_j of each image and prototype, float B×P, ≥ 0.
        own_BP: bool B×P, whether a prototype belongs to the image's class.
    """
    return cluster(distance_BP, ~own_BP)


def diversity(prototypes_CMD: Tensor) -> Tensor:
    """Returns Div of each class, exp(−0.001 · Σ_{j,l} ‖p_j − p_l‖₂), float C in (0, 1].

    The sum is over all ordered pairs of the class's prototypes.

    Args:
        prototypes_CMD: the M prototypes of each class, float C×M×D.
    """
    exact = "donot_use_mm_for_euclid_dist"
    distance_CMM = torch.cdist(prototypes_CMD, prototypes_CMD, compute_mode=exact)
    return torch.exp(-0.001 * distance_CMM.sum((1, 2)))


def off_class_penalty(classifier_CP: Tensor, own_CP: Tensor) -> Tensor:
    """Returns Σ |V_cj| over classes c and prototypes j that are not of class c; a scalar.

    Args:
        classifier_CP: V, float C×P, the weight of each prototype for each class.
        own_CP: bool C×P, whether a prototype belongs to the class.
    """
    return (classifier_CP.abs() * ~own_CP).sum()


def orthogonality(slots_CKP: Tensor) -> Tensor:
    """Returns the similarity of a class's slots (Rymarczyk et al., 2022, L_orth); a scalar.

    The cosines between the slots of a class are summed over ordered pairs and averaged over all
    slots, as in the published code: 0 for slots that select different prototypes, K − 1 if all
    select the same.

    Args:
        slots_CKP: the slots' distributions over the prototypes, float C×K×P, ≥ 0.
    """
    C, K, _ = slots_CKP.shape
    unit_CKP = functional.normalize(slots_CKP, dim=-1)
    cosine_CKK = unit_CKP @ unit_CKP.mT
    return (cosine_CKK.sum() - cosine_CKK.diagonal(dim1=1, dim2=2).sum()) / (C * K)


def alignment(first_BVD: Tensor, second_BVD: Tensor) -> Tensor:
    """Returns −log(z·z'), averaged over cells (Nauta et al., 2023, L_A); a scalar.

    The same cell of two copies of an image should be assigned to the same prototype. Each of the
    two terms carries the gradient of one copy.

    Args:
        first_BVD: embeddings of the first copies' cells, float B×V×D; each sums to 1.
        second_BVD: embeddings of the second copies' cells, float B×V×D; each sums to 1.
    """
    agree = [
        (first_BVD * second_BVD.detach()).sum(-1),
        (first_BVD.detach() * second_BVD).sum(-1),
    ]
    return -torch.log(torch.stack(agree) + TINY).mean()


def presence(score_BD: Tensor) -> Tensor:
    """Returns −log tanh Σ_b p_bd, averaged over prototypes (Nauta et al., 2023, L_T); a scalar.

    Each prototype should be present in some image of the batch.

    Args:
        score_BD: presence of each prototype in each image, float B×D in [0, 1].
    """
    return -torch.log(torch.tanh(score_BD.sum(0)) + TINY).mean()
