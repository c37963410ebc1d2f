"""Standardisation and initial values of W and the prototypes, from features of training crops."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHRINKAGE = 0.3
NOTHING = 1e-6
"""A standard deviation within classes below this share of the whole one is rounding."""
BLOCK = 4096
"""How many crops are held in double precision at a time."""


def mean_and_deviation(features_XF: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the standard deviation (of the population) of each feature: float64 F.

    Args:
        features_XF: features of X ≥ 1 crops, float X×F, on any device.
    """
    blocks = features_XF.split(BLOCK)
    mean_F = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(features_XF)
    squares = [(block - mean_F).square().sum(0) for block in blocks]
    return mean_F, (torch.stack(squares).sum(0) / len(features_XF)).sqrt()


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
    classes, place_X = np.unique(labels_X.numpy(), return_inverse=True)
    features_XF = features_XF.float()
    if len(classes) < 2 or not features_XF.std(dim=0).any():
        return features_XF.new_zeros(0, features_XF.shape[1])
    directions = _directions(*_covariances(features_XF, place_X, len(classes)))
    chosen_dF = torch.from_numpy(directions[: min(count, len(classes) - 1)]).float()
    return chosen_dF / (features_XF @ chosen_dF.T).std(correction=0)


def _covariances(
    features_XF: Tensor, place_X: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the covariances within and between classes, F×F each.

    Double precision takes a block of crops at a time: copies of all would be several times as large
    as the features themselves.
    """
    count_C = np.bincount(place_X, minlength=classes)
    means_CF = np.zeros((classes, features_XF.shape[1]))
    places = torch.from_numpy(place_X).split(BLOCK)
    blocks = list(zip(features_XF.split(BLOCK), places, strict=True))
    for block_BF, place_B in blocks:
        np.add.at(means_CF, place_B.numpy(), block_BF.numpy())
    means_CF /= count_C[:, None]
    within_FF = np.zeros((features_XF.shape[1], features_XF.shape[1]))
    for block_BF, place_B in blocks:
        deviations = block_BF.numpy() - means_CF[place_B.numpy()]
        within_FF += deviations.T @ deviations
    share_C = count_C / len(place_X)
    means_CF -= share_C @ means_CF
    return within_FF / len(place_X), (share_C[:, None] * means_CF).T @ means_CF


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
