"""The last part of a model: from the embeddings of an image's views to class scores.

A view is what a prototype is compared with: a crop (ProtoMask), a cell of the feature map of the
whole image (ProtoPNet, ProtoPool, PIP-Net), or the whole image (black box).

Dimensions: X any, B images, V views, P prototypes, D embedding, C classes.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.model.base.distances import above, exact_distances, similarity

LEAST_PRESENCE = 0.1
"""Presences below it count as 0 when PIP-Net classifies (Nauta et al., 2023)."""


class Head(Protocol):
    """The computation from embeddings to similarities and class scores; a named tuple."""

    @property
    def prototypes_PD(self) -> Tensor:
        """What the embeddings of views are compared with, float P×D."""
        ...

    @property
    def weights_CP(self) -> Tensor:
        """V, float C×P, the weight of each prototype's similarity for each class."""
        ...

    @property
    def has_prototypes(self) -> bool:
        """Whether the model has prototypes; in a black box, the classes take their place."""
        ...

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        """Returns the similarity of each view to each prototype, float64 X×V×P.

        Args:
            embedding_XVD: embeddings of the views, float X×V×D.
        """
        ...

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        """Returns s_j, the similarity of each image to each prototype, B×P, of the scores' dtype.

        Args:
            scores_BVP: similarity of each view to each prototype, float B×V×P.
            valid_BV: bool B×V, false for missing views; at least one true in each row.
        """
        ...

    def counted(self, similarity_BP: Tensor) -> Tensor:
        """Returns what counts of images' similarities before any floor, of their shape and dtype.

        Args:
            similarity_BP: similarity of each image to each prototype as pushed, float B×P.
        """
        ...


class DistanceHead(NamedTuple):
    """Similarity that decreases with the squared distance to a prototype.

    Args:
        prototypes_PD: float P×D, points in the embedding space.
        weights_CP: V, float C×P, the weight of each prototype's similarity for each class.
        epsilon: ε of the similarity log((d + 1) / (d + ε)), in (0, 1).
        floor_P: float P, ≥ 0, what is subtracted from an image's similarity to each prototype; an
            image whose similarity is smaller is not like it at all.
        focal: whether an image's similarity is that of its nearest view minus the mean over its
            views (Rymarczyk et al., 2022), instead of that of the nearest view alone.
    """

    prototypes_PD: Tensor
    weights_CP: Tensor
    epsilon: float
    floor_P: Tensor
    focal: bool = False

    @property
    def has_prototypes(self) -> bool:
        """True: the model has prototypes."""
        return True

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        """Returns s = log((d + 1) / (d + ε)) of each view and prototype, float64 X×V×P.

        Args:
            embedding_XVD: embeddings of the views, float X×V×D.
        """
        distance = exact_distances(embedding_XVD.double(), self.prototypes_PD.double())
        return similarity(distance, self.epsilon)

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        """Returns what of the largest similarity (focal: minus the mean) is above the floor, B×P.

        Args:
            scores_BVP: similarity of each view to each prototype, float B×V×P.
            valid_BV: bool B×V, false for missing views; at least one true in each row.
        """
        found_BP = largest_score(scores_BVP, valid_BV)
        if self.focal:
            found_BP = found_BP - mean_score(scores_BVP, valid_BV)
        return self.counted(found_BP)

    def counted(self, similarity_BP: Tensor) -> Tensor:
        """Returns what of images' similarities is above the floor, of their shape and dtype.

        Args:
            similarity_BP: similarity of each image to each prototype as pushed, float B×P.
        """
        return above(similarity_BP, self.floor_P)


class PresenceHead(NamedTuple):
    """PIP-Net (Nauta et al., 2023): an embedding is the presence of each prototype (D = P).

    Args:
        weights_CP: ω, float C×P, ≥ 0, the weight of each prototype's presence for each class.
    """

    weights_CP: Tensor

    @property
    def prototypes_PD(self) -> Tensor:
        """The identity, float P×P: prototype j is channel j of the embedding."""
        return torch.eye(self.weights_CP.shape[1], device=self.weights_CP.device)

    @property
    def has_prototypes(self) -> bool:
        """True: the model has prototypes."""
        return True

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        """Returns the embeddings themselves, float64 X×V×P in [0, 1].

        Args:
            embedding_XVD: embeddings of the views, float X×V×D in [0, 1].
        """
        return embedding_XVD.double()

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        """Returns the largest presence over an image's views, 0 where it is below 0.1, B×P.

        Args:
            scores_BVP: presence of each prototype in each view, float B×V×P in [0, 1].
            valid_BV: bool B×V, false for missing views; at least one true in each row.
        """
        largest_BP = largest_score(scores_BVP, valid_BV)
        return torch.where(largest_BP < LEAST_PRESENCE, 0.0, largest_BP)

    def counted(self, similarity_BP: Tensor) -> Tensor:
        """Returns presences as they are: there is no floor."""
        return similarity_BP


class LinearHead(NamedTuple):
    """A black box: classes take the place of prototypes, and logits that of similarities (P = C).

    Args:
        prototypes_PD: float C×F, the classifier's weights of each class.
        bias_P: float C, the classifier's bias of each class.
    """

    prototypes_PD: Tensor
    bias_P: Tensor

    @property
    def weights_CP(self) -> Tensor:
        """The identity, float C×C: the score of a class is its own logit."""
        return torch.eye(len(self.bias_P), device=self.bias_P.device)

    @property
    def has_prototypes(self) -> bool:
        """False: a black box has no prototypes."""
        return False

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        """Returns the logits of each view, float64 X×V×C.

        Args:
            embedding_XVD: standardised features of the views, float X×V×F.
        """
        return embedding_XVD.double() @ self.prototypes_PD.double().T + self.bias_P.double()

    def pooled(self, scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
        """Returns the largest logits over an image's views (it has one), B×C.

        Args:
            scores_BVP: logits of each view, float B×V×C.
            valid_BV: bool B×V, false for missing views; at least one true in each row.
        """
        return largest_score(scores_BVP, valid_BV)

    def counted(self, similarity_BP: Tensor) -> Tensor:
        """Returns logits as they are: there is no floor."""
        return similarity_BP


def on_cpu(head: Head) -> Head:
    """Returns the same head with its tensors on the CPU.

    Args:
        head: a model's head, with its tensors on any device.
    """
    fields: Any = head
    values = [value.cpu() if isinstance(value, Tensor) else value for value in fields]
    return type(fields)(*values)


def largest_score(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the largest score over an image's valid views, B×P, of the scores' dtype.

    Args:
        scores_BVP: similarity of each view to each prototype, float B×V×P.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    return scores_BVP.masked_fill(~valid_BV.unsqueeze(-1), -torch.inf).amax(dim=1)


def mean_score(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the mean score over an image's valid views, B×P, of the scores' dtype.

    Args:
        scores_BVP: similarity of each view to each prototype, float B×V×P.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    valid_BV1 = valid_BV.unsqueeze(-1)
    return scores_BVP.masked_fill(~valid_BV1, 0).sum(1) / valid_BV1.sum(1)


def best_view(scores_BVP: Tensor, valid_BV: Tensor) -> Tensor:
    """Returns the valid view with the largest score, int64 B×P; the first in case of ties.

    `torch.argmax` does not specify which of equal values it returns.

    Args:
        scores_BVP: similarity of each view to each prototype, float B×V×P.
        valid_BV: bool B×V, false for missing views; at least one true in each row.
    """
    V = scores_BVP.shape[1]
    largest_B1P = largest_score(scores_BVP, valid_BV).unsqueeze(1)
    is_largest = (scores_BVP == largest_B1P) & valid_BV.unsqueeze(-1)
    place = torch.arange(V, device=scores_BVP.device).view(1, V, 1)
    return torch.where(is_largest, place, V).amin(dim=1)
