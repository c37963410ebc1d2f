"""How typical an image is of those that a model was validated with."""

import numpy as np
import pytest

from pipeline.model.base.typicality import RARE, calibrated, typicality


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_of_the_validation_images_themselves_few_are_rare(count: int) -> None:
    """At most as many as the share says, and one."""
    largest_N = np.random.default_rng(count).normal(3, 2, count)
    percentiles = calibrated(largest_N)
    found = np.array([typicality(float(value), percentiles) for value in largest_N])
    for share in (0.05, 0.5):
        assert (found < share).sum() <= share * count + 1
    assert (np.diff(found[np.argsort(largest_N)]) >= 0).all()


def test_shares_by_hand() -> None:
    percentiles = calibrated(np.arange(1, 101.0))
    assert [typicality(score, percentiles) for score in (1, 2, 50, 99)] == [0.01, 0.02, 0.5, 0.99]


def test_of_other_images_of_known_classes_one_in_twenty_is_rare() -> None:
    percentiles = calibrated(np.random.default_rng(0).normal(size=20_000))
    others = np.random.default_rng(1).normal(size=20_000)
    rare = np.mean([typicality(float(value), percentiles) < RARE for value in others])  # type: ignore[operator]
    assert rare == pytest.approx(0.05, abs=0.005)


def test_below_and_above_all_of_them() -> None:
    percentiles = calibrated(np.array([1.0, 2.0, 3.0]))
    assert [typicality(score, percentiles) for score in (0.9, 3.0, 9.0)] == [0, 1, 1]


def test_without_validation_images_nothing_is_known() -> None:
    assert calibrated(np.array([])) == [] and typicality(1.0, []) is None
