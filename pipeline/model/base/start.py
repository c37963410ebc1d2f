"""What W and the prototypes can start from, found in the training crops."""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

SHRINKAGE = 0.3


def discriminants(features_XF: Tensor, labels_X: Tensor, count: int) -> Tensor:
    """Finds the directions in which classes differ most against their own spread (Fisher, 1936).

    The covariances within and between classes are shrunk towards multiples of the identity by 0.3,
    since there are seldom more crops of a class than features.

    Args:
        features_XF: standardised pooled features of crops.
        labels_X: int64, their images' classes.
        count: how many directions at most.

    Returns:
        float32, d×F with d = min(count, classes present − 1), the best first, scaled together so
        that the features' d·X projections have a standard deviation of 1. No direction (0×F) where
        there is only one class or no feature varies.
    """
    features, labels = features_XF.double().numpy(), labels_X.numpy()
    present = len(np.unique(labels))
    if present < 2 or not features.std(axis=0).any():
        return features_XF.new_zeros(0, features.shape[1])
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
    directions = analysis.fit(features, labels).scalings_[:, : min(count, present - 1)].T
    return torch.from_numpy(directions / (features @ directions.T).std()).float()


def centres(embeddings_XD: Tensor, count: int, seed: int) -> Tensor:
    """Finds `count` cluster centres by k-means++ (Arthur & Vassilvitskii, 2007).

    Args:
        embeddings_XD: at least one.
        count: how many centres.
        seed: of the start.

    Returns:
        float32, count×D. Where there are no more than `count` distinct embeddings these are the
        centres, one after the other and again from the first.
    """
    distinct = np.unique(embeddings_XD.double().numpy(), axis=0)
    if len(distinct) <= count:
        return torch.from_numpy(np.resize(distinct, (count, distinct.shape[1]))).float()
    with warnings.catch_warnings():
        # A cluster that loses its last member keeps its centre.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        found, _ = kmeans2(embeddings_XD.double().numpy(), count, minit="++", rng=seed)
    return torch.from_numpy(found).float()
