"""What is learned from feature maps that are made of nothing but numbers."""

import numpy as np
import pytest
from numpy.typing import NDArray
from settings import parts

from pipeline.masks.segmenters.parts.codebook import FRINGE, Codebook
from pipeline.masks.segmenters.parts.features import FeatureMap, FeatureMaps
from pipeline.masks.segmenters.parts.learning import _components, _statistics, learn


def _maps(*stages: NDArray[np.float32]) -> FeatureMaps:
    return [FeatureMap.of(stage.astype(np.float32)) for stage in stages]


def _drawn(seed: int, side: int = 16) -> FeatureMaps:
    """An object of two halves before a background, in four channels, of which one is strong.

    It lies elsewhere in each image; a fifth channel is noise.
    """
    random = np.random.default_rng(seed)
    top, left = random.integers(2, side // 2 - 1, 2)
    first = np.zeros((5, side, side))
    first[0] = 1
    place = np.s_[:, top : top + side // 2, left : left + side // 2]
    first[place] = np.array([0, 3, 3, 0, 0])[:, None, None]
    first[:, top : top + side // 2, left + side // 4 : left + side // 2] = np.array(
        [0, 3, 0, 3, 0]
    )[:, None, None]
    first[4] = random.normal(size=(side, side)) / 10
    return _maps(first, first[:, ::2, ::2])


def test_statistics_by_hand() -> None:
    """0, 2, 4 and 6 in two images: a mean of 3, a deviation of √5; a constant has 1."""
    images = [
        _maps(np.array([[[0, 2]], [[7, 7]]], np.float32)),
        _maps(np.array([[[4, 6]], [[7, 7]]], np.float32)),
    ]
    (mean,), (std,) = _statistics(images)
    np.testing.assert_allclose(mean, [3, 7], rtol=1e-6)
    np.testing.assert_allclose(std, [np.sqrt(5), 1], rtol=1e-6)


def test_the_object_and_its_halves_are_found() -> None:
    images = [_drawn(seed) for seed in range(6)]
    codebook = learn(parts(stages=(1, 2), levels=(2,)), "0" * 64, images)
    for maps in images:
        standard = codebook.standard(maps)
        inside = maps[0].values()[1] > 1
        objectness = codebook.objectness(standard)
        assert objectness[inside].min() > max(-FRINGE, objectness[~inside].max())
        nearest = (codebook.looks(standard, objectness) @ codebook.centres[0].T).argmax(axis=-1)
        halves = [
            np.bincount(nearest[maps[0].values()[channel] > 1], minlength=2) for channel in (2, 3)
        ]
        assert all(half.max() >= 24 for half in halves)  # of 32
        assert halves[0].argmax() != halves[1].argmax()


def test_parts_are_the_same_in_every_image() -> None:
    images = [_drawn(seed) for seed in range(6)]
    codebook = learn(parts(stages=(1, 2), levels=(2,)), "0" * 64, images[:4])
    found = set()
    for maps in images:
        standard = codebook.standard(maps)
        looks = codebook.looks(standard, codebook.objectness(standard))
        found |= set((looks[maps[0].values()[2] > 1] @ codebook.centres[0].T).argmax(axis=-1))
    assert len(found) == 1


def _levels(codebook: Codebook) -> list[int]:
    return [len(centres) for centres in codebook.centres]


@pytest.mark.filterwarnings("error")
def test_images_without_any_difference_teach_one_part_and_no_object() -> None:
    constant = _maps(np.ones((3, 8, 8)), np.ones((4, 4, 4)))
    codebook = learn(parts(stages=(1, 2)), "0" * 64, [constant, constant])
    assert _levels(codebook) == [1, 1]
    assert (codebook.objectness(codebook.standard(constant)) == -1).all()
    assert all(np.isfinite(centres).all() for centres in codebook.centres)


@pytest.mark.parametrize("objectness", ["norm", "contrast"])
def test_one_cell_is_enough(objectness: str) -> None:
    one = _maps(np.ones((3, 1, 1)))
    codebook = learn(parts(stages=(1,), objectness=objectness), "0" * 64, [one])
    assert _levels(codebook) == [1, 1]
    assert np.isfinite(codebook.for_parts.matrices[0]).all()


def test_fewer_distinct_cells_than_parts() -> None:
    """Of four cells, there are no nine parts."""
    values = np.array([[[0.0, 1], [2, 3]], [[9, 1], [3, 4]]])
    codebook = learn(parts(stages=(1,), levels=(2, 9)), "0" * 64, [_maps(values)])
    assert _levels(codebook)[0] <= 2 and _levels(codebook)[1] <= 4


def test_components_of_one_cell_are_numbers() -> None:
    cells = np.array([[1.0, 2.0]], np.float32)
    standard = [[cells.T[..., None]]]
    found = _components([cells], standard, (0,), 5, np.random.default_rng(0))
    assert found.matrices[0].shape[0] == 2
    assert np.isfinite(found.matrices[0]).all()
