"""Objectness: guessed, spread and scaled, by hand and by another way."""

import numpy as np
import pytest

from pipeline.masks.segmenters.parts import objectness
from pipeline.masks.segmenters.parts.objectness import contrast, norm, scaled, spread


def _walk(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The random walk, step by step, from its definition."""
    side, flat = len(values), features.reshape(-1, features.shape[-1])
    cells = [(row, column) for row in range(side) for column in range(side)]
    weight = np.zeros((len(cells), len(cells)))
    for i, (row, column) in enumerate(cells):
        for j, (other_row, other_column) in enumerate(cells):
            if i != j:
                apart = (row - other_row) ** 2 + (column - other_column) ** 2
                near = np.exp(-apart / (2 * (objectness.REACH * side) ** 2))
                weight[i, j] = np.exp((flat[i] @ flat[j] - 1) / objectness.NEAR) * near
    step = weight / weight.sum(axis=1, keepdims=True)
    middle = values.mean()
    start = (values - middle).ravel()
    found, now = np.zeros(len(start)), start
    for number in range(600):
        found += (1 - objectness.SPREAD) * objectness.SPREAD**number * now
        now = step @ now
    return middle + found.reshape(values.shape)


@pytest.mark.parametrize("side", [2, 3])
def test_spread_is_a_random_walk(side: int) -> None:
    random = np.random.default_rng(side)
    features = random.normal(size=(side, side, 4)) + 1
    features = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)
    values = random.normal(size=(side, side))
    found = spread(features, values)
    np.testing.assert_allclose(found, _walk(features, values), atol=1e-6)
    assert np.ptp(found) < np.ptp(values)


def test_what_looks_alike_becomes_alike() -> None:
    """Left and right look different; on each side one cell of three is found."""
    features = np.zeros((6, 6, 2), np.float32)
    features[:, :3, 0] = features[:, 3:, 1] = 1
    values = np.zeros((6, 6))
    values[2:4, 1] = 1
    found = spread(features, values)
    assert found[:, :3].min() > found[:, 3:].max()
    np.testing.assert_allclose(found, found[::-1], atol=1e-9)


def test_one_cell_keeps_its_objectness() -> None:
    np.testing.assert_allclose(spread(np.ones((1, 1, 2), np.float32), np.array([[3.0]])), [[3.0]])


def test_scaled_by_hand() -> None:
    """Two groups, of 0 and 10: the upper one's mean is 1, all of the lower one is ≤ 0."""
    found = scaled(np.array([[0.0, 0.0, 0.0], [10.0, 10.0, 0.0]]))
    assert found[1, :2].tolist() == [1, 1]
    assert (found[0] <= 0).all() and found[1, 2] == found[0, 0]
    values = np.array([0.0, 0.9, 9.0, 11.0])
    threshold = 5.5 * 11 / 64  # the middle of the bin of 0.9, of 64 bins from 0 to 11
    np.testing.assert_allclose(scaled(values), (values - threshold) / (10 - threshold))
    np.testing.assert_allclose(scaled(values * 7 - 3), scaled(values), atol=1e-9)


def test_in_a_constant_map_nothing_is_object() -> None:
    assert scaled(np.full((3, 4), 5.0)).tolist() == [[-1] * 4] * 3


def test_norm_by_hand() -> None:
    """Lengths 5 and 5·e²: logarithms two apart, so one deviation on either side of the mean."""
    cells = np.array([[3.0, 3 * np.e**2], [4.0, 4 * np.e**2]], np.float32)[:, None]
    np.testing.assert_allclose(norm(cells), [[-1, 1]], atol=1e-5)
    assert norm(np.zeros((2, 3, 3), np.float32)).tolist() == [[0] * 3] * 3


def test_contrast_by_hand() -> None:
    """Of 3×3 cells, the middle looks like none of the border: 8 cells of −1 and one of 0."""
    cells = np.zeros((3, 3, 2), np.float32)
    cells[..., 0] = 1
    cells[1, 1] = 0, 1
    found = contrast(cells)
    # mean −8/9, deviation √(8/81)
    assert found[1, 1] == pytest.approx((8 / 9) / np.sqrt(8 / 81), rel=1e-5)
    assert found[0, 0] == pytest.approx((-1 / 9) / np.sqrt(8 / 81), rel=1e-5)
    assert contrast(np.ones((1, 1, 2), np.float32)).tolist() == [[0]]
