"""The bootstrap: images drawn with replacement, again and again."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 400_000
"""Places of images that are drawn at a time."""


def resampled_sums(
    values_NT: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Draws N of N images with replacement, the same ones for all T columns.

    Args:
        values_NT: a value an image and column; one that is not finite does not count.
        resamples: how often N images are drawn.
        seed: of the drawing.

    Yields:
        The sums of the values that count, and how many they are: R×T each, R resamples a block.
    """
    N = len(values_NT)
    finite_NT = np.isfinite(values_NT)
    clean_NT = np.where(finite_NT, values_NT, 0.0)
    counted_NK, kinds_T = np.unique(finite_NT, axis=1, return_inverse=True)
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // N)
    for start in range(0, resamples, block):
        counts_RN = _drawn(random, min(block, resamples - start), N)
        yield counts_RN @ clean_NT, (counts_RN @ counted_NK)[:, kinds_T.reshape(-1)]


def _drawn(random: np.random.Generator, R: int, N: int) -> NDArray[np.float64]:
    """How often each of N images is in each of R resamples: R×N."""
    drawn_RN = (
        random.integers(0, N, (R, N), dtype=np.int32) + N * np.arange(R, dtype=np.int32)[:, None]
    )
    return np.bincount(drawn_RN.reshape(-1), minlength=R * N).reshape(R, N).astype(np.float64)
