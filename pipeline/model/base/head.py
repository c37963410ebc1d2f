"""The last part of a model: from the embeddings of an image's views to class scores.

A view is what a prototype is compared with: a crop (ProtoMask), a cell of the feature map of the
whole image (ProtoPNet, ProtoPool, PIP-Net), or the whole image (black box).

Dimensions: X anything, B images, V views, P prototypes, D embedding, C classes.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.model.base.distances import crop_distances, similarity

LEAST_PRESENCE = 0.1
"""Below it, PIP-Net passes a prototype over when it classifies (Nauta et al., 2023)."""


class Head(Protocol):
    """What a model computes from embeddings; a named tuple.

    Args:
        prototypes_PD: what the views are compared with.
        weights_CP: V, what a prototype's similarity is worth to each class.
    """

    @property
    def prototypes_PD(self) -> Tensor: ...

    @property
    def weights_CP(self) -> Tensor: ...

    @property
    def has_prototypes(self) -> bool:
        """Whether there are prototypes; in a black box, classes stand in their place."""
        ...

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        """Returns how similar each view is to each prototype, float64 X×V×P."""
        ...

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        """Returns s_j, how similar each image is to each prototype, B×P."""
        ...


class DistanceHead(NamedTuple):
    """Similarity falls with the distance to a prototype.

    Args:
        prototypes_PD, weights_CP: see `Head`.
        epsilon: ε of the similarity.
        focal: an image's similarity is that of its nearest view minus the mean over its views
            (Rymarczyk et al., 2022), not that of the nearest view alone.
    """

    prototypes_PD: Tensor
    weights_CP: Tensor
    epsilon: float
    focal: bool = False

    @property
    def has_prototypes(self) -> bool:
        return True

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        distance = crop_distances(embedding_XVD.double(), self.prototypes_PD.double())
        return similarity(distance, self.epsilon)

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        largest_BP = largest_score(scores_BVP, valid_BV)
        return largest_BP - mean_score(scores_BVP, valid_BV) if self.focal else largest_BP


class PresenceHead(NamedTuple):
    """PIP-Net: an embedding says how much of each prototype a view is (Nauta et al., 2023)."""

    weights_CP: Tensor

    @property
    def prototypes_PD(self) -> Tensor:
        return torch.eye(self.weights_CP.shape[1], device=self.weights_CP.device)

    @property
    def has_prototypes(self) -> bool:
        return True

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        return embedding_XVD.double()

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        largest_BP = largest_score(scores_BVP, valid_BV)
        return torch.where(largest_BP < LEAST_PRESENCE, 0.0, largest_BP)


class LinearHead(NamedTuple):
    """A black box: in the place of prototypes stand the classes, in that of similarities logits.

    Args:
        prototypes_PD: the weights of each class, C×F.
        bias_P: C.
    """

    prototypes_PD: Tensor
    bias_P: Tensor

    @property
    def weights_CP(self) -> Tensor:
        return torch.eye(len(self.bias_P), device=self.bias_P.device)

    @property
    def has_prototypes(self) -> bool:
        return False

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        return embedding_XVD.double() @ self.prototypes_PD.double().T + self.bias_P.double()

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        return largest_score(scores_BVP, valid_BV)


def on_cpu(head: Head) -> Head:
    """Returns the same head with its tensors on the CPU."""
    fields: Any = head
    values = [value.cpu() if isinstance(value, Tensor) else value for value in fields]
    return type(fields)(*values)


def largest_score(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the largest score over an image's valid views: B×P."""
    return scores_BVP.masked_fill(~valid_BV.unsqueeze(-1), -torch.inf).amax(dim=1)


def mean_score(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the mean score over an image's valid views: B×P."""
    valid_BV1 = valid_BV.unsqueeze(-1)
    return scores_BVP.masked_fill(~valid_BV1, 0).sum(1) / valid_BV1.sum(1)


def best_view(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the valid view with the largest score, int64 B×P; of equal ones the first.

    (torch.argmax promises nothing about ties.)
    """
    V = scores_BVP.shape[1]
    largest_B1P = largest_score(scores_BVP, valid_BV).unsqueeze(1)
    is_largest = (scores_BVP == largest_B1P) & valid_BV.unsqueeze(-1)
    place = torch.arange(V, device=scores_BVP.device).view(1, V, 1)
    return torch.where(is_largest, place, V).amin(dim=1)
