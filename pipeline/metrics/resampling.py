"""Bootstrap resampling of images."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 400_000
"""Maximum number of images drawn at a time, over all resamples of a block (at least one)."""


def resampled_sums(
    values_NT: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Draws N of N images with replacement, the same ones for all T columns.

    Args:
        values_NT: float64 N×T, one value per image and column; values that are not finite are
            ignored.
        resamples: number of times that N images are drawn, ≥ 1.
        seed: seed of the random draws, ≥ 0.

    Yields:
        Sums of the finite values and their numbers, float64 R×T each, for blocks of R resamples.
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
    """Returns how often each of N images occurs in each of R resamples, float64 R×N."""
    drawn_RN = (
        random.integers(0, N, (R, N), dtype=np.int32) + N * np.arange(R, dtype=np.int32)[:, None]
    )
    return np.bincount(drawn_RN.reshape(-1), minlength=R * N).reshape(R, N).astype(np.float64)
