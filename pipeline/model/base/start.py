"""Initial values of W and the prototypes, computed from the training crops."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHRINKAGE = 0.3
NOTHING = 1e-6
"""A standard deviation within classes below this share of the whole one is rounding."""


def discriminants(features_XF: Tensor, labels_X: Tensor, count: int) -> Tensor:
    """Computes the linear discriminants of classes (Fisher, 1936).

    The covariances within and between classes are shrunk towards multiples of the identity by 0.3,
    since a class seldom has more crops than features. If the features do not vary within classes,
    as with one crop a class, the covariance within them counts as a multiple of the identity, and
    the discriminants are the principal axes of the class means.

    Args:
        features_XF: standardised pooled features of crops, float X×F on the CPU.
        labels_X: int64 X, the classes of the crops' images, on the CPU.
        count: maximum number of directions, ≥ 1.

    Returns:
        float32 d×F with d = min(count, classes present − 1), the most discriminative first, scaled
        by one factor so that all d·X projections of the features have a standard deviation of 1. No
        direction (0×F) if there is only one class or no feature varies.
    """
    features, labels = features_XF.double().numpy(), labels_X.numpy()
    present = len(np.unique(labels))
    if present < 2 or not features.std(axis=0).any():
        return features_XF.new_zeros(0, features.shape[1])
    directions = _directions(features, labels)[: min(count, present - 1)]
    return torch.from_numpy(directions / (features @ directions.T).std()).float()


def _directions(features: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns all discriminants, the most discriminative first, as rows."""
    centred = features - features.mean(axis=0)
    within = features.copy()
    for label in np.unique(labels):
        within[labels == label] -= features[labels == label].mean(axis=0)
    if np.linalg.norm(within) <= NOTHING * np.linalg.norm(centred):
        return np.linalg.svd(centred, full_matrices=False).Vh
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
    return analysis.fit(features, labels).scalings_.T


def centres(embeddings_XD: Tensor, count: int, seed: int) -> Tensor:
    """Computes cluster centres by k-means with k-means++ seeding (Arthur & Vassilvitskii, 2007).

    Args:
        embeddings_XD: the embeddings to cluster, float X×D on the CPU, X ≥ 1.
        count: number of cluster centres, ≥ 1.
        seed: seed of the random initial centres, ≥ 0.

    Returns:
        float32 count×D. If there are at most `count` distinct embeddings, these are the centres,
        repeated cyclically.
    """
    from scipy.cluster.vq import kmeans2

    distinct = np.unique(embeddings_XD.double().numpy(), axis=0)
    if len(distinct) <= count:
        return torch.from_numpy(np.resize(distinct, (count, distinct.shape[1]))).float()
    with warnings.catch_warnings():
        # A cluster that loses its last member keeps its centre.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        found, _ = kmeans2(embeddings_XD.double().numpy(), count, minit="++", rng=seed)
    return torch.from_numpy(found).float()
