"""From cells to pixels: a drawn disc's outline, and parts that cover the object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label

from pipeline.masks.segmenters.parts.codebook import Codebook, Directions, unit
from pipeline.masks.segmenters.parts.regions import (
    _components,
    _enlarged,
    _large,
    _without_crumbs,
    outline,
    regions,
)

NOTHING = Directions((), ())


def _codebook(*centres: NDArray[np.float32]) -> Codebook:
    return Codebook((), (), NOTHING, NOTHING, np.zeros(0, np.float32), 0.0, centres, {})


def _disc(side: int, radius: float, centre: float = 0.5) -> NDArray[np.bool_]:
    y, x = (np.mgrid[:side, :side] + 0.5) / side - centre
    return x**2 + y**2 < radius**2


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return (one & other).sum() / (one | other).sum()


def _objectness(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(inside, 1.2, -1.2)


def test_a_disc_is_found_to_the_pixel_from_coarse_cells() -> None:
    """Of 12×12 cells, whose squares alone are not so good a disc."""
    disc, cells = _disc(96, 0.3), _disc(12, 0.3)
    image = np.where(disc[..., None], (220, 60, 40), (40, 120, 60)).astype(np.uint8)
    found = outline(image, _objectness(cells))
    # One pixel outside the disc, and no more
    assert found[disc].all()
    assert not found[~_disc(96, 0.3 + 2 / 96)].any()
    assert _iou(found, disc) > 0.9 > _iou(np.kron(cells, np.ones((8, 8), bool)), disc)


def test_holes_are_filled_and_what_has_no_seed_is_dropped() -> None:
    disc, spot = _disc(96, 0.3), _disc(96, 0.06, 0.9)
    image = np.where((disc | spot)[..., None], (220, 60, 40), (40, 120, 60)).astype(np.uint8)
    image[46:50, 46:50] = 40, 120, 60
    objectness = np.where(_disc(24, 0.3), 1.2, -1.2)
    objectness[20:23, 20:23] = 0.3  # the spot is object, but not surely
    found = outline(image, objectness)
    assert found[disc].all()
    assert not found[spot].any()


def test_without_objectness_nothing_is_object() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert not outline(image, np.full((8, 8), -1.0)).any()


def test_crumbs_by_hand() -> None:
    """The 7 is a crumb of the 1s, as is the 2 beside them; 3 and 4 touch nothing that is large."""
    labels = np.array(
        [
            [1, 1, 7, -1, 3, 4],
            [1, 1, 2, -1, 3, -1],
            [5, 5, 5, -1, -1, -1],
        ]
    )
    found = _without_crumbs(labels, 3)
    assert found.tolist() == [
        [1, 1, 1, -1, 3, 3],
        [1, 1, found[1, 2], -1, 3, -1],
        [5, 5, 5, -1, -1, -1],
    ]
    assert found[1, 2] in (1, 5)  # as near to either
    np.testing.assert_array_equal(_without_crumbs(labels, 1), labels)
    nothing = np.full((3, 3), -1)
    np.testing.assert_array_equal(_without_crumbs(nothing, 3), nothing)


def test_a_crumb_goes_to_what_it_is_connected_to() -> None:
    """The 9 is nearer to the 2s, across the background, than to the 1s."""
    labels = np.array([[1, 1, 1, 1, 9, -1, 2, 2, 2, 2]])
    labels = np.concatenate([labels, np.full_like(labels, -1)])
    assert _without_crumbs(labels, 4)[0].tolist() == [1, 1, 1, 1, 1, -1, 2, 2, 2, 2]


def test_components_by_hand() -> None:
    """Corners do not connect; two regions of one label are two."""
    labels = np.array([[4, 4, -1], [-1, 6, 4], [0, 6, 4]])
    found, parts = _components(labels)
    assert found.tolist() == [[1, 1, 0], [0, 2, 3], [4, 2, 3]]
    assert parts == [4, 6, 4, 0]


def test_what_is_too_small_is_dropped_by_hand() -> None:
    inside = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 0]], bool)
    assert _large(inside, 3).astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(_large(inside, 1), inside)
    assert not _large(np.zeros((2, 2), bool), 1).any()


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_crumbs_leave_no_region_that_is_too_small(seed: int, smallest: int) -> None:
    random = np.random.default_rng(seed)
    inside = _large(random.random((15, 20)) < 0.7, smallest)
    labels = np.where(inside, random.integers(0, 3, inside.shape), -1)
    found = _without_crumbs(labels, smallest)
    np.testing.assert_array_equal(found >= 0, inside)
    sizes = np.bincount(label(found, background=-1, connectivity=1).ravel())
    assert (sizes[1:] >= smallest).all()


def test_enlarged_is_the_pixel_that_has_most_of_it() -> None:
    """Four regions of 4×4 pixels, doubled twice over: four of 16×16, and nothing between."""
    small = np.zeros((10, 10), np.int64)
    small[1:5, 1:5], small[1:5, 5:9], small[5:9, 1:5], small[5:9, 5:9] = 1, 2, 3, 4
    large = _enlarged(small, (40, 40))
    inner = np.kron(small, np.ones((4, 4), np.int64))
    corner = _disc(40, 0.45)  # corners are rounded
    np.testing.assert_array_equal(large[corner], inner[corner])
    np.testing.assert_array_equal(_enlarged(small, (10, 10)), small)


@hypothesis_settings(max_examples=15)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(60, 80), (193, 300), (400, 230)]),
    st.sampled_from([0.002, 0.02]),
)
def test_each_level_covers_the_object_once(
    seed: int, shape: tuple[int, int], min_area: float
) -> None:
    random = np.random.default_rng(seed)
    image = np.kron(random.integers(0, 256, (9, 9, 3)), np.ones((60, 60, 1)))
    image = image[: shape[0], : shape[1]].astype(np.uint8)
    cells = random.normal(size=(12, 12)) + _disc(12, 0.3)
    looks = unit(random.normal(size=(12, 12, 5)).astype(np.float32))
    codebook = _codebook(*(unit(random.normal(size=(n, 5)).astype(np.float32)) for n in (3, 9)))
    found = list(regions(image, cells, looks, codebook, 30.0, min_area))
    assert found
    covered = np.zeros((3, *shape), int)
    for region in found:
        assert region.bitmap.shape == shape
        covered[region.level] += region.bitmap
    assert covered.max() == 1
    np.testing.assert_array_equal(covered[1], covered[0])
    np.testing.assert_array_equal(covered[2], covered[0])
    # Numbers: 0, the object; 1–3, the first level's parts; 4–12, the second's
    first = {0: range(1), 1: range(1, 4), 2: range(4, 13)}
    assert all(region.part in first[region.level] for region in found)


def test_halves_of_a_disc_are_parts() -> None:
    """Left and right look different, and are of different colours."""
    disc = _disc(96, 0.35)
    image = np.where(disc[..., None], (220, 60, 40), (40, 120, 60)).astype(np.uint8)
    image[:, 48:][disc[:, 48:]] = 230, 220, 40
    looks = np.zeros((24, 24, 2), np.float32)
    looks[:, :12, 0] = looks[:, 12:, 1] = 1
    codebook = _codebook(np.eye(2, dtype=np.float32))
    found = list(regions(image, _objectness(_disc(24, 0.35)), looks, codebook, 30.0, 0.01))
    assert [(region.part, region.level) for region in found] == [(0, 0), (1, 1), (2, 1)]
    whole, left, right = (region.bitmap for region in found)
    assert _iou(whole, disc) > 0.9
    halves = np.arange(96) < 48
    assert _iou(left, disc & halves) > 0.85
    assert _iou(right, disc & ~halves) > 0.85
    assert all(0.5 < region.scores[0] < 1.4 for region in found)


@pytest.mark.parametrize("colour", [(0, 0, 0), (77, 77, 77), (255, 9, 0)])
def test_an_image_of_one_colour_has_no_region(colour: tuple[int, int, int]) -> None:
    image = np.full((30, 40, 3), colour, np.uint8)
    looks = np.ones((8, 8, 1), np.float32)
    cells = _objectness(_disc(8, 0.3))
    codebook = _codebook(np.ones((1, 1), np.float32))
    assert list(regions(image, cells, looks, codebook, 30.0, 0.01)) == []
