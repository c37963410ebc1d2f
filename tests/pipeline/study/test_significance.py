import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.study.significance import RESAMPLES, paired_bootstrap


def every_resample(differences: list[float]) -> float:
    """p from all N^N resamples, each as likely as the others."""
    values = np.array(differences)
    means = [
        np.nanmean(drawn)
        for drawn in itertools.product(values, repeat=len(values))
        if np.isfinite(drawn).any()
    ]
    at_most = np.mean(np.array(means) <= 1e-12)
    at_least = np.mean(np.array(means) >= -1e-12)
    return min(1.0, 2 * min(at_most, at_least))


@pytest.mark.parametrize(
    "differences",
    [
        [1.0, 2.0, -1.0, 0.5],
        [-1.0, -1.0, 1.0, -1.0, 0.0],
        [0.1, 0.2, -0.3, 0.0, 0.4],
        [3.0, -1.0, 2.0, np.nan, 1.0],
        [2.0, np.inf, -0.5, np.nan, 1.0],
        # (3/4)⁴ = 32 % of the resamples have no image that counts.
        [1.0, np.nan, np.nan, np.nan],
    ],
)
def test_agrees_with_all_resamples(differences: list[float]) -> None:
    column = np.array(differences)[:, None]
    exact = every_resample([d if np.isfinite(d) else np.nan for d in differences])
    # Four standard errors of twice a share.
    error = 8 * np.sqrt(0.25 / RESAMPLES)
    assert abs(paired_bootstrap(column)[0] - exact) < error


def test_agrees_with_scipy() -> None:
    random = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.15, 0.3):
        differences = random.normal(shift, 1, 200)
        p = paired_bootstrap(differences[:, None])[0]
        drawn = stats.bootstrap((differences,), np.mean, method="percentile", rng=4)
        means = drawn.bootstrap_distribution
        assert abs(p - 2 * min(np.mean(means <= 0), np.mean(means >= 0))) < 0.04
        permuted = stats.permutation_test(
            (differences, np.zeros(200)),
            lambda a, b, axis: (a - b).mean(axis),
            vectorized=True,
            permutation_type="samples",
            rng=5,
        )
        assert abs(p - permuted.pvalue) < 0.05


def many(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0.05, 1, (300, 4))


def test_p_is_never_zero_and_at_most_one() -> None:
    sure, equal = np.ones((30, 1)), np.zeros((30, 1))
    assert paired_bootstrap(sure)[0] == pytest.approx(2 / (RESAMPLES + 1))
    assert paired_bootstrap(equal)[0] == 1


def test_sums_that_rounding_keeps_from_zero_count_as_zero() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floating point.
    differences = np.array([[0.1 + 0.2 - 0.3]] * 5 + [[0.0]] * 5)
    differences[0] = 1.0
    differences[1] = -1.0
    exact = every_resample([1.0, -1.0, 0.0, 0.0, 0.0])
    assert paired_bootstrap(differences)[0] > 0.5 and exact > 0.5


def test_tests_do_not_depend_on_those_beside_them() -> None:
    together = paired_bootstrap(many())
    alone = [paired_bootstrap(many()[:, [n]])[0] for n in range(4)]
    assert together.tolist() == alone


def test_is_the_same_in_both_directions_and_at_every_call() -> None:
    assert paired_bootstrap(many()).tolist() == paired_bootstrap(-many()).tolist()
    assert paired_bootstrap(many(), seed=1).tolist() != paired_bootstrap(many()).tolist()
