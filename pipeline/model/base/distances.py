"""Distances of embeddings to prototypes, and the similarities computed from them.

Dimensions: X any, B images, V views, P prototypes, D embedding.
"""

import torch
from torch import Tensor

NEAR = 1e-6
"""Squared distances below it are sums of squares in `exact_distances`."""
PAIRS_AT_ONCE = 16384


def similarity(distance: Tensor, epsilon: float) -> Tensor:
    """Returns s = log((d + 1) / (d + ε)), in (0, log(1/ε)], of any shape (docs/method.md, step 5).

    Args:
        distance: squared distances d, float ≥ 0, of any shape.
        epsilon: ε, in (0, 1), which bounds the similarity at d = 0.
    """
    return torch.log((distance + 1) / (distance + epsilon))


def above(similarity_XP: Tensor, floor_P: Tensor) -> Tensor:
    """Returns max(s − floor, 0), of the shape and dtype of s: what is not alike counts for nothing.

    Args:
        similarity_XP: similarities s to the prototypes, float (…)×P.
        floor_P: each prototype's floor, float P, ≥ 0; 0 leaves similarities as they are.
    """
    return (similarity_XP - floor_P.to(similarity_XP.dtype)).clamp_min(0)


def crop_distances(embedding_XD: Tensor, prototypes_PD: Tensor) -> Tensor:
    """Returns the squared distances of all embeddings to all prototypes, float (…)×P, ≥ 0.

    One matrix product: ‖z − p‖² = ‖z‖² + ‖p‖² − 2·z·p. The middle ½ of the embedding's range is
    subtracted from both, which keeps the three terms small and so reduces cancellation.

    Args:
        embedding_XD: embeddings, float (…)×D, of any leading dimensions.
        prototypes_PD: the prototypes, float P×D, of the same dtype.
    """
    z, p = embedding_XD - 0.5, prototypes_PD - 0.5
    squares = z.square().sum(-1, keepdim=True) + p.square().sum(-1)
    return (squares - 2 * z @ p.T).clamp_min(0)


def exact_distances(embedding_XD: Tensor, prototypes_PD: Tensor) -> Tensor:
    """Returns `crop_distances`, of which small ones are computed again as sums of squares.

    The matrix product leaves some 1e-13 where an embedding equals a prototype; here the distance is
    exactly 0 there, so that the similarity is log(1/ε) for every ε.

    Args:
        embedding_XD: embeddings, float64 (…)×D, of any leading dimensions.
        prototypes_PD: the prototypes, float64 P×D.
    """
    distance_XP = crop_distances(embedding_XD, prototypes_PD)
    flat_XP, flat_XD = distance_XP.view(-1, len(prototypes_PD)), embedding_XD.flatten(0, -2)
    for near_n2 in (flat_XP < NEAR).nonzero().split(PAIRS_AT_ONCE):
        x, p = near_n2.unbind(1)
        flat_XP[x, p] = (flat_XD[x] - prototypes_PD[p]).square().sum(1)
    return distance_XP


def smallest_distance(distance_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns d_j, the smallest distance over an image's valid views, float B×P.

    Args:
        distance_BVP: squared distance of each view to each prototype, float B×V×P.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    return distance_BVP.masked_fill(~valid_BV.unsqueeze(-1), torch.inf).amin(dim=1)
