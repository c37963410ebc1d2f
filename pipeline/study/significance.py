"""Tests whether two rows differ by more than the random choice of test images explains."""

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.resampling import resampled_sums

RESAMPLES = 10_000
LEVEL = 0.05
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
    # What rounding makes of a sum that is 0.
    zero_T = ROUNDING * np.abs(differences_NT).sum(axis=0, where=np.isfinite(differences_NT))
    at_most_T, at_least_T, drawn_T = np.zeros((3, differences_NT.shape[1]))
    for sums_RT, counted_RT in resampled_sums(differences_NT, resamples, seed):
        # A resample without any image that counts has no mean.
        some_RT = counted_RT > 0
        at_most_T += (some_RT & (sums_RT <= zero_T)).sum(axis=0)
        at_least_T += (some_RT & (sums_RT >= -zero_T)).sum(axis=0)
        drawn_T += some_RT.sum(axis=0)
    return np.minimum(1.0, 2 * (np.minimum(at_most_T, at_least_T) + 1) / (drawn_T + 1))
