"""Standardisation and initial values of W and the prototypes, from features of training crops."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHRINKAGE = 0.6
NOTHING = 1e-6
"""A standard deviation within classes below this share of the whole one is rounding."""
SPREAD = 1.0
"""Standard deviation of W's projections at the start. With a smaller one a model with a frozen
backbone names more birds right, and by larger regions (docs/design.md)."""
BLOCK = 4096
"""How many crops are held in double precision at a time."""


def sample(
    labels_X: NDArray[np.int64], count: int, of_a_class: int, seed: int
) -> NDArray[np.int64]:
    """Draws views of a large data set at random, and more of the classes that have few.

    Args:
        labels_X: int64 X, the classes of the views' images.
        count: how many are drawn from all, ≥ 1.
        of_a_class: how many each class has at least, unless it has fewer, ≥ 0.
        seed: seed of the choice, ≥ 0.

    Returns:
        int64, their numbers in ascending order, 0..X−1.
    """
    order_X = np.random.default_rng(seed).permutation(len(labels_X))
    by_class_X = order_X[np.argsort(labels_X[order_X], kind="stable")]
    sorted_X = labels_X[by_class_X]
    place_X = np.arange(len(labels_X)) - np.searchsorted(sorted_X, sorted_X)
    return np.union1d(order_X[:count], by_class_X[place_X < of_a_class])


def mean_and_deviation(features_XF: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the standard deviation (of the population) of each feature: float64 F.

    Args:
        features_XF: features of X ≥ 1 crops, float X×F, on any device.
    """
    blocks = features_XF.split(BLOCK)
    mean_F = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(features_XF)
    squares = [(block - mean_F).square().sum(0) for block in blocks]
    return mean_F, (torch.stack(squares).sum(0) / len(features_XF)).sqrt()


def principal_axes(features_XF: Tensor, count: int) -> Tensor:
    """Computes the directions in which features vary most (principal component analysis).

    Args:
        features_XF: standardised pooled features of crops, float X×F on the CPU.
        count: maximum number of directions, ≥ 0.

    Returns:
        float32 d×F, the most varied first, with d ≤ count directions in which they vary at all,
        scaled by one factor so that all d·X projections of the features have a standard deviation
        of 1.
    """
    from scipy.linalg import eigh

    features_XF = features_XF.float()
    alike_X = np.zeros(len(features_XF), np.int64)
    covariance_FF, _ = _covariances(features_XF, alike_X, alike_X[:1])
    variance_F, axes_FF = eigh(covariance_FF)
    varied = min(count, int((variance_F > NOTHING**2 * variance_F.sum()).sum()))
    if varied == 0:
        return features_XF.new_zeros(0, features_XF.shape[1])
    return _scaled(axes_FF.T[::-1][:varied], features_XF)


def kinds(projections_XD: Tensor, count: int, seed: int) -> Tensor:
    """Clusters crops into kinds, such as the parts of an object, by k-means.

    Args:
        projections_XD: the crops' features along their principal axes, float X×D on the CPU.
        count: number of kinds, ≥ 1.
        seed: seed of the random initial centres, ≥ 0.

    Returns:
        int64 X, the kind of each crop, 0..count−1.
    """
    if projections_XD.shape[1] == 0:
        return torch.zeros(len(projections_XD), dtype=torch.int64)
    centres_KD = centres(projections_XD, count, seed).to(projections_XD.dtype)
    blocks = projections_XD.split(BLOCK)
    return torch.cat([torch.cdist(block, centres_KD).argmin(dim=1) for block in blocks])


def discriminants(
    features_XF: Tensor, labels_X: Tensor, count: int, kinds_X: Tensor | None = None
) -> Tensor:
    """Computes linear discriminants (Fisher, 1936) of classes among crops of the same kind.

    What tells a beak from a tail is not what tells two classes' beaks apart. So the covariance
    between classes is that of the class means around the mean of their kind, and the covariance
    within them that around the mean of a class and kind. Both are shrunk towards multiples of the
    identity by 0.6, since a class seldom has more crops than features. If the features do not vary
    within classes, as with one crop a class, the covariance within them counts as a multiple of the
    identity, and the discriminants are the principal axes of the class means.

    Args:
        features_XF: standardised pooled features of crops, float X×F on the CPU.
        labels_X: int64 X, the classes of the crops' images, on the CPU.
        count: maximum number of directions, ≥ 0.
        kinds_X: int64 X, the kind of each crop; None for a single kind.

    Returns:
        float32 d×F with d = min(count, the sum over kinds of the classes present − 1), the most
        discriminative first, scaled by one factor so that all d·X projections of the features have
        a standard deviation of 1. No direction (0×F) if each kind is of one class or no feature
        varies.
    """
    kinds_X = torch.zeros_like(labels_X) if kinds_X is None else kinds_X
    of_both = np.stack([kinds_X.numpy(), labels_X.numpy()])
    (kind_G, _), place_X = np.unique(of_both, axis=1, return_inverse=True)
    count = min(count, len(kind_G) - len(np.unique(kind_G)))
    features_XF = features_XF.float()
    if count == 0 or not features_XF.std(dim=0).any():
        return features_XF.new_zeros(0, features_XF.shape[1])
    directions = _directions(*_covariances(features_XF, place_X.reshape(-1), kind_G))
    return _scaled(directions[:count], features_XF)


def _scaled(directions_dF: NDArray[np.float64], features_XF: Tensor) -> Tensor:
    """Scales directions by one factor so that projections have the standard deviation SPREAD."""
    chosen_dF = torch.from_numpy(directions_dF.copy()).float()
    return SPREAD * chosen_dF / (features_XF @ chosen_dF.T).std(correction=0)


def _covariances(
    features_XF: Tensor, place_X: NDArray[np.int64], kind_G: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the covariances within groups, and between groups of the same kind, F×F each.

    Double precision takes a block of crops at a time: copies of all would be several times as large
    as the features themselves.

    Args:
        features_XF: features of X crops, float X×F.
        place_X: int64 X, the group of each crop, 0..G−1.
        kind_G: int64 G, the kind of each group, 0 or more.
    """
    count_G = np.bincount(place_X)
    means_GF = np.zeros((len(count_G), features_XF.shape[1]))
    places = torch.from_numpy(place_X).split(BLOCK)
    blocks = list(zip(features_XF.split(BLOCK), places, strict=True))
    for block_BF, place_B in blocks:
        np.add.at(means_GF, place_B.numpy(), block_BF.numpy())
    means_GF /= count_G[:, None]
    within_FF = np.zeros((features_XF.shape[1], features_XF.shape[1]))
    for block_BF, place_B in blocks:
        deviations = block_BF.numpy() - means_GF[place_B.numpy()]
        within_FF += deviations.T @ deviations
    share_G = count_G / len(place_X)
    for kind in np.unique(kind_G):
        own_G = kind_G == kind
        means_GF[own_G] -= share_G[own_G] @ means_GF[own_G] / share_G[own_G].sum()
    return within_FF / len(place_X), (share_G[:, None] * means_GF).T @ means_GF


def _directions(
    within_FF: NDArray[np.float64], between_FF: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns all discriminants, the most discriminative first, as rows."""
    from scipy.linalg import eigh

    if np.trace(within_FF) <= NOTHING**2 * np.trace(between_FF):
        return eigh(between_FF)[1].T[::-1].copy()
    return eigh(_shrunk(between_FF), _shrunk(within_FF))[1].T[::-1].copy()


def _shrunk(covariance_FF: NDArray[np.float64]) -> NDArray[np.float64]:
    sphere = np.eye(len(covariance_FF)) * np.trace(covariance_FF) / len(covariance_FF)
    return (1 - SHRINKAGE) * covariance_FF + SHRINKAGE * sphere


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
