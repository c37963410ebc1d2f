"""Tests whether two rows differ by more than the random choice of test images explains."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.05
BLOCK = 400_000
ROUNDING = 1e-12


def paired_bootstrap(
    differences_NT: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Tests, two-sided, whether T mean differences over the same N images are 0.

    Images are drawn with replacement, the same ones for all tests. An image whose difference is
    not finite in a test does not count in its means. p = 2·min(share of means ≤ 0, share of means
    ≥ 0), at most 1; a share is (r + 1) / (R + 1), so that it is never 0 (Davison & Hinkley, 1997).

    Args:
        differences_NT: an image's value in one row minus that in the other, float64 N×T. Each
            column has a finite value.
        resamples: R, the number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        p-value of each test, float64 T, in (0, 1].
    """
    N, T = differences_NT.shape
    finite_NT = np.isfinite(differences_NT)
    clean_NT = np.where(finite_NT, differences_NT, 0.0)
    # Rounding error of a sum that is 0.
    zero_T = ROUNDING * np.abs(clean_NT).sum(axis=0)
    counted_NT, kinds_T = np.unique(finite_NT, axis=1, return_inverse=True)
    random = np.random.default_rng(seed)
    at_most_T, at_least_T, drawn_T = np.zeros(T), np.zeros(T), np.zeros(T)
    block = max(1, BLOCK // N)
    for start in range(0, resamples, block):
        counts_RN = _drawn(random, min(block, resamples - start), N)
        sums_RT = counts_RN @ clean_NT
        # A resample without a finite difference has no mean.
        some_RT = (counts_RN @ counted_NT > 0)[:, kinds_T.reshape(-1)]
        at_most_T += (some_RT & (sums_RT <= zero_T)).sum(axis=0)
        at_least_T += (some_RT & (sums_RT >= -zero_T)).sum(axis=0)
        drawn_T += some_RT.sum(axis=0)
    return np.minimum(1.0, 2 * (np.minimum(at_most_T, at_least_T) + 1) / (drawn_T + 1))


def _drawn(random: np.random.Generator, R: int, N: int) -> NDArray[np.float64]:
    """Returns how often each of N images is in each of R resamples: R×N."""
    drawn_RN = (
        random.integers(0, N, (R, N), dtype=np.int32) + N * np.arange(R, dtype=np.int32)[:, None]
    )
    return np.bincount(drawn_RN.reshape(-1), minlength=R * N).reshape(R, N).astype(np.float64)
