"""How typical an image is of those that a model knows: its largest class score among theirs.

The largest score is the evidence for the best class. What is like none of the training images has
little of it, whatever class it is evidence for (Hendrycks et al., 2022, arXiv 1911.11132).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RARE = 0.05
"""Images that are less typical look like no class. Of images of known classes as many do."""
STEPS = 100


def calibrated(largest_N: NDArray[np.floating]) -> list[float]:
    """Returns the percentiles of the largest class scores of images that were not trained on.

    Args:
        largest_N: the largest class score of each of N validation images, float N.

    Returns:
        The percentiles 0, 1, …, 100; nothing if there is no image.
    """
    if not len(largest_N):
        return []
    shares = np.linspace(0, 1, STEPS + 1)
    return np.quantile(largest_N.astype(np.float64), shares, method="lower").tolist()


def typicality(largest: float, percentiles: Sequence[float]) -> float | None:
    """Returns the share of the validation images whose largest class score is at most an image's.

    Args:
        largest: the image's largest class score.
        percentiles: those of the validation images, from `calibrated`.

    Returns:
        A share in [0, 1], in hundredths; None without validation images.
    """
    if not percentiles:
        return None
    reached = int(np.searchsorted(percentiles, largest, side="right")) - 1
    return min(max(reached, 0), STEPS) / STEPS
