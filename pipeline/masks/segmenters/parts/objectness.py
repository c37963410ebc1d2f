"""Where the object is: a guess from one image's features, spread along them, and learned.

Dimensions: N images, R×R cells of the grid on which features are spread, G×G of the finer grid of
the first stage, D numbers that a cell's features are projected to.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

GRID = 24
"""R: cells a side of the grid on which features are spread; the time grows with its sixth power."""
NEAR, REACH, SPREAD = 0.1, 0.2, 0.9
"""How alike features must be, in cosine distance, and how near, in sides of the image, for a cell
to take over another's objectness, and the share that it takes over."""


def spread(features_RRD: NDArray[np.float32], objectness_RR: NDArray) -> NDArray[np.float64]:
    """Returns the objectness after cells that look alike have exchanged it, R×R.

    A random walk on the image's cells, whose steps are likelier between near cells with similar
    features, and which ends after each with probability 1 − SPREAD (Zhou et al., "Learning with
    Local and Global Consistency", 2004).

    Args:
        features_RRD: unit vectors, float32 R×R×D.
        objectness_RR: R×R.
    """
    flat = features_RRD.reshape(-1, features_RRD.shape[-1]).astype(np.float64)
    weight = np.exp((flat @ flat.T - 1) / NEAR) * _nearness(len(objectness_RR))
    np.fill_diagonal(weight, 0)
    root = np.sqrt(weight.sum(axis=1)) + 1e-12
    kept = np.eye(len(flat)) - SPREAD * weight / np.outer(root, root)
    middle = objectness_RR.mean()
    asked = (objectness_RR.ravel() - middle) * root
    found = solve(kept, asked, assume_a="pos", overwrite_a=True, check_finite=False)
    return middle + ((1 - SPREAD) * found / root).reshape(objectness_RR.shape)


def scaled(objectness: NDArray) -> NDArray[np.float64]:
    """Returns objectness with 0 at the threshold between two groups and 1 at the upper one's mean.

    The threshold is Otsu's (1979), of this image alone, so that no constant says how much of an
    image is object. A constant map becomes −1 everywhere: nothing is object.

    Args:
        objectness: of the cells of one image, any shape.
    """
    from skimage.filters import threshold_otsu

    if np.ptp(objectness) < 1e-9:
        return np.full(objectness.shape, -1.0)
    threshold = threshold_otsu(objectness, nbins=64)
    upper = objectness[objectness > threshold].mean() - threshold
    return (objectness - threshold) / max(upper, 1e-12)


def norm(last_CHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns a first guess of objectness, H×W: the features' length, as standardised logarithms.

    Args:
        last_CHW: the feature map of the last stage, float32 C×H×W.
    """
    return _standard(np.log(np.linalg.norm(last_CHW, axis=0) + 1e-6))


def contrast(features_GGD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns a first guess of objectness, G×G: how unlike the image's border a cell looks.

    Args:
        features_GGD: unit vectors, float32 G×G×D.
    """
    side = len(features_GGD)
    border = np.ones((side, side), bool)
    rim = max(1, side // 16)
    border[rim:-rim, rim:-rim] = False
    return _standard(-(features_GGD @ features_GGD[border].mean(axis=0)))


def _standard(values: NDArray) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    return (values - values.mean()) / max(values.std(), 1e-9)


@lru_cache(maxsize=1)
def _nearness(side: int) -> NDArray[np.float64]:
    row, column = np.divmod(np.arange(side * side), side)
    squared = np.subtract.outer(row, row) ** 2 + np.subtract.outer(column, column) ** 2
    return np.exp(-squared / (2 * (REACH * side) ** 2))
