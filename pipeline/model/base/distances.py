"""Distances of embeddings to prototypes, and the similarities that follow from them.

Dimensions: X anything, B images, V views, P prototypes, D embedding.
"""

import torch
from torch import Tensor


def similarity(distance: Tensor, epsilon: float) -> Tensor:
    """Returns s = log((d + 1) / (d + ε)); ≥ 0, log(1/ε) at d = 0."""
    return torch.log((distance + 1) / (distance + epsilon))


def crop_distances(embedding_XD: Tensor, prototypes_PD: Tensor) -> Tensor:
    """Returns the squared Euclidean distances of all embeddings to all prototypes, (…)×P, ≥ 0.

    One matrix product: ‖z − p‖² = ‖z‖² + ‖p‖² − 2·z·p, with the middle ½ of the embedding's range
    subtracted from both, which keeps the three terms small against their difference.
    """
    z, p = embedding_XD - 0.5, prototypes_PD - 0.5
    squares = z.square().sum(-1, keepdim=True) + p.square().sum(-1)
    return (squares - 2 * z @ p.T).clamp_min(0)


def smallest_distance(distance_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns d_j, the smallest distance over an image's valid views: B×P."""
    return distance_BVP.masked_fill(~valid_BV.unsqueeze(-1), torch.inf).amin(dim=1)
